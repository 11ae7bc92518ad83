from cnn_jax.errors import UsageError, unknown

MODELS = ["resnet18", "resnet50", "vgg16", "LeNet"]


def test_a_near_miss_suggests_the_right_name():
    error = unknown("model", "resnet5", MODELS)
    assert isinstance(error, UsageError)
    assert str(error).startswith("unknown model 'resnet5'; did you mean 'resnet50'")


def test_case_does_not_hide_a_name():
    message = str(unknown("model", "LENET", MODELS))
    assert message.startswith("unknown model 'LENET'; did you mean 'LeNet'")


def test_without_a_near_miss_the_known_names_are_listed():
    message = str(unknown("model", "xyz", MODELS))
    assert message == "unknown model 'xyz'; known: LeNet, resnet18, resnet50, vgg16"


def test_a_long_list_is_cut():
    message = str(unknown("model", "xyz", [f"model_{i:02d}" for i in range(30)]))
    assert message.endswith("model_18, model_19, ... (30 in all)")


def test_the_message_is_one_line():
    assert "\n" not in str(unknown("model", "x", MODELS))
