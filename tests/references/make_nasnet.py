"""Write nasnet.npz from timm's NASNet-A large and Cadene's mobile one, see torch_parity.py.

The latter (pip install pretrainedmodels) has the names and pools of `nasnetamobile_slim`; its last
pool takes 7x7 pixels and no others. Keras's mobile network is in make_keras.py.
"""

from tests.references.torch_parity import timm_model, write


def cadene_mobile(num_classes: int):
    """Build NASNet-A mobile of pretrained-models.pytorch."""
    from pretrainedmodels.models.nasnet_mobile import NASNetAMobile

    return NASNetAMobile(num_classes=num_classes)


if __name__ == "__main__":
    write(
        "nasnet",
        {
            "nasnetalarge": (timm_model("nasnetalarge"), 75),
            "nasnetamobile_slim": (cadene_mobile, 224),
        },
    )
