"""The lecture's topics in its order: what is said of each, what computed it, what is shown of that.

A table and nothing else. `EXPERIMENTS` holds the commands at demo size; `CHAPTERS` the topics, each
with parts of these commands' pages. Texts may mark `code`, and name results as in
{architectures[vgg16][params]:,}: those of an experiment, of `architectures` by the network's name.
"""

from typing import NamedTuple

from cnn_jax.lecture.runner import Experiment


class Part(NamedTuple):
    """A section of an experiment's page.

    figures: beginnings of the captions of those of its figures that are shown, without the rest of
      the section; empty: the whole section.
    columns: headers of the columns that are shown of its tables; empty: all.
    """

    experiment: str
    section: str
    figures: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


class Topic(NamedTuple):
    """A topic of the lecture.

    slides: the slides' headings.
    text: paragraphs.
    code: functions as module:name, or modules.
    parts: what is shown of the experiments' pages.
    networks: names of networks whose rows of the comparison are shown.
    differs: where a slide's number or formula is off, and why.
    """

    title: str
    slides: tuple[str, ...]
    text: tuple[str, ...]
    code: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    networks: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()


class Chapter(NamedTuple):
    """A page of the gallery.

    name: of its file.
    cover: the figure that stands for it on the first page.
    """

    name: str
    title: str
    text: str
    topics: tuple[Topic, ...]
    cover: Part | None = None


# What another one looks into comes before it; seconds are about those of two quiet CPU cores.
EXPERIMENTS: dict[str, Experiment] = {
    "convolution": Experiment("convolution", (), 15, "workdir"),
    "classify": Experiment("classify", (), 7),
    "alexnet": Experiment("architectures", ("--model=alexnet",), 7, "workdir"),
    "vgg16": Experiment("architectures", ("--model=vgg16",), 8, "workdir"),
    "architectures": Experiment("architectures", (), 120, "workdir"),
    # 99.16 % of the test images right (seed 0); the demo's own 337 steps took 209 seconds of two
    # cores that others used too
    "digits": Experiment("demo", ("--steps=200",), 140, "workdir"),
    # at half the size, with one box for all classes and large batches: mean IoU .597, 69 % of the
    # classes wrong (seed 0), after 71 seconds of two cores
    "localize": Experiment(
        "localize",
        (
            "--steps=300",
            "--batch_size=96",
            "--image_size=64",
            "--pad=4",
            "--model_options=features=32, stage_sizes=(1, 1, 1), class_specific=False",
            "--learning_rate=0.1",
            "--warmup_epochs=0.2",
        ),
        70,
        "workdir",
    ),
    # at half the size the steps are cheap: mean IoU .24, after 480 of them .17 (seed 0)
    "segment": Experiment("segment", ("--steps=600", "--image_size=64", "--pad=4"), 140, "workdir"),
    # the images of forty steps of eight: selective search of all would take four minutes
    "compare_detectors": Experiment(
        "compare_detectors",
        (
            "--train_split=train[:320]",
            "--eval_split=test[:60]",
            "--steps=40",
            "--fitted_on=60",
        ),
        120,
        "workdir",
    ),
    "detect": Experiment(
        "detect",
        ("--steps=220", "--image_size=64", "--eval_split=test[:200]"),
        120,
        "workdir",
    ),
    "filters": Experiment("filters", (), 8),
    "activations": Experiment("activations", (), 15),
    "embedding": Experiment("embedding", (), 12, of="digits"),
    "occlusion": Experiment("occlusion", (), 20),
    "saliency": Experiment(
        "saliency",
        (
            "--methods=saliency,smooth_grad,integrated_gradients,deconvnet,guided_backprop,"
            "grad_cam,guided_grad_cam,rise",
            "--samples=8",
            "--steps=8",
            "--masks=200",
        ),
        60,
    ),
    "ascent": Experiment("ascent", ("--target=968,251,99", "--steps=64"), 57),
    "fooling": Experiment(
        "fooling",
        (
            "--target=nematode,hamster,mortar",
            "--steps=40",
            "--generations=800",
            "--image={photographs}/chelsea.jpg",
        ),
        47,
    ),
    "adversarial": Experiment(
        "adversarial",
        (
            "--eps=2/255",
            "--epsilons=0.1/255,0.2/255,0.4/255",
            "--attack_steps=10",
        ),
        25,
    ),
    "koala": Experiment(
        "adversarial", ("--target=koala", "--eps=4/255", "--nocurve", "--attack_steps=20"), 20
    ),
    # digits are large and clear: at the 10 / 255 of photographs none is misread
    "universal_perturbation": Experiment(
        "universal_perturbation", ("--eps=0.3", "--examples=200"), 25, of="digits"
    ),
    "dream": Experiment(
        "dream", ("--longest_side=320", "--octaves=3", "--image={photographs}/flower.jpg"), 25
    ),
    "feature_inversion": Experiment(
        "feature_inversion",
        (
            "--layers=stem,stage2_block2,stage4_block3,stage5_block3",
            "--steps=60",
            "--image={photographs}/chelsea.jpg",
        ),
        35,
    ),
    "style": Experiment("style", ("--longest_side=256", "--steps=80"), 60),
}

_OPS = "cnn_jax.ops"
_WORKED = "cnn_jax.lecture.examples"


def _worked(*sections: str) -> tuple[Part, ...]:
    """Sections of the page of the worked examples."""
    return tuple(Part("convolution", section) for section in sections)


CONVOLUTION = Chapter(
    "convolution",
    "Convolution",
    "What a convolution computes, in one dimension and in two, what size comes out and what it "
    "costs. Every number on this page comes from the library's operations in float64.",
    (
        Topic(
            "A noisy sensor, smoothed",
            ("Introduction", "Convolution operation", "Convolution in 1D"),
            (
                "Convolutional networks are made for data on a grid: a line of measurements over "
                "time, or the plane of an image. The lecture begins on the line, with a spaceship "
                "that is located by a noisy laser sensor. Weighing the last measurements, the "
                "newest the most, gives a better estimate than any one of them.",
                "In a network's words x is the input, w the kernel, and the result s is a feature "
                "map.",
            ),
            (f"{_WORKED}:laser_sensor", f"{_OPS}.convolution:true_conv"),
            _worked("A noisy laser sensor"),
        ),
        Topic(
            "Convolution in two dimensions",
            ("Convolution in 2D", "2D convolution"),
            (
                "The definition flips the kernel, and for that it commutes: s(i, j) = "
                "Σ I(i − m, j − n) k(m, n). Networks learn their kernels, so that it does not "
                "matter whether one is flipped, and compute the cross-correlation, "
                "Σ I(i + m, j + n) k(m, n). JAX does so as well. The slide's table of letters "
                "is derived here from the operation's own derivatives, once for each of the two.",
            ),
            (
                f"{_OPS}.convolution:conv",
                f"{_OPS}.convolution:true_conv",
                f"{_WORKED}:letters",
                "cnn_jax.lecture.symbols:sums_of_products",
            ),
            _worked("Convolution and cross-correlation"),
            differs=(
                "The slide's table of letters, aw + bx + ey + fz and so on, is the "
                "cross-correlation. The convolution that the same slides define above it would "
                "give the other column.",
            ),
        ),
        Topic(
            "Strides and the size of the output",
            ("2D Convolution", "2D convolution with stride"),
            (
                "A 3×3 filter has five places in each direction of a 7×7 grid, and three "
                "when it moves by two pixels at a time.",
            ),
            (f"{_OPS}.geometry:output_size", f"{_OPS}.geometry:unused_pixels"),
            _worked("Output size and stride"),
            differs=(
                "The slide's (N − F)/S + 1 holds where S divides N − F and nothing is padded. At a "
                "stride of three the 7×7 grid gives 2.33: the quotient is rounded down, and the "
                "last pixels of each row and column are seen by no window.",
            ),
        ),
        Topic(
            "What a filter costs",
            ("Convolution operation",),
            (
                "A filter is named by its height and width; its depth is that of its input. "
                "Counted for the slide's image of 32×32×3 and one filter of 5×5.",
            ),
            (f"{_OPS}.geometry:conv_cost", f"{_WORKED}:costs"),
            _worked("What one filter costs"),
        ),
        Topic(
            "Finding edges",
            (
                "Convolution example",
                "Edge detection",
                "Convolution Filter-1",
                "Convolution Filter-2",
            ),
            (
                "Two neighbours subtracted are an edge detector. The lecture's two 3×3 filters "
                "do the same over three rows or columns, which averages some of the noise away.",
            ),
            (f"{_WORKED}:edge_filters", f"{_WORKED}:photograph_edges", f"{_OPS}.convolution:conv"),
            _worked("Edge detection"),
        ),
    ),
    Part("convolution", "Edge detection", ("Filter 1: vertical",)),
)

ADVANTAGES = Chapter(
    "advantages",
    "Why convolution",
    "Sparse interactions, shared parameters and equivariance: what makes a convolution cheaper "
    "than a matrix, and what it knows about images without learning it.",
    (
        Topic(
            "Sparse interactions",
            ("Advantages", "Sparse interaction", "Sparse connectivity"),
            (
                "A dense layer connects each of m inputs with each of n outputs. Where an output "
                "sees k inputs only, n·k connections are left, and a convolution has k weights for "
                "all of them.",
            ),
            (f"{_OPS}.geometry:conv_cost", "cnn_jax.lecture.figures:sparse_and_dense"),
            _worked("Sparse interactions"),
        ),
        Topic(
            "Receptive fields",
            ("Receptive field",),
            ("Few connections a layer do not mean a narrow view: depth widens it.",),
            (f"{_OPS}.geometry:receptive_fields", "cnn_jax.programs.receptive_field"),
            _worked("Receptive fields"),
        ),
        Topic(
            "Parameter sharing",
            ("Parameter sharing",),
            (
                "Each weight of a kernel is used at every place of the input. Between that and a "
                "layer that shares nothing lies the tiled convolution, whose kernels take turns.",
            ),
            (f"{_OPS}.local:local_conv", f"{_OPS}.local:tiled_conv", f"{_OPS}.convolution:conv"),
            _worked("Parameter sharing"),
        ),
        Topic(
            "Equivariance",
            ("Equivariance",),
            (
                "A shifted photograph gives shifted features, and one of twice the brightness "
                "features of twice the size, as a convolution is linear. A rotated, mirrored or "
                "enlarged one does not give rotated, mirrored or enlarged features.",
            ),
            (f"{_WORKED}:equivariance",),
            _worked("Equivariance"),
        ),
    ),
    Part("convolution", "Receptive fields"),
)

POOLING = Chapter(
    "pooling",
    "Pooling, stride and padding",
    "The other stages of a convolutional layer, and the choices that decide how quickly a network "
    "shrinks its maps.",
    (
        Topic(
            "Pooling",
            ("Pooling",),
            (
                "A typical layer convolves, rectifies, and then summarises neighbourhoods: by the "
                "maximum, the average, or an average that weighs the centre more. Four ways on a "
                "photograph.",
            ),
            (
                f"{_OPS}.pooling:max_pool",
                f"{_OPS}.pooling:avg_pool",
                f"{_OPS}.pooling:gaussian_pool",
                f"{_OPS}.pooling:l2_pool",
            ),
            _worked("Kinds of pooling"),
        ),
        Topic(
            "A typical network at work",
            ("Typical CNN",),
            (
                "Convolutions, ReLUs and poolings in turn, and a classifier at the end. Here is "
                "one that was trained on handwritten digits while this gallery was made, and one "
                "of its images on the way through it. It is a ResNet-20, which makes its maps "
                "smaller by strides, and pools once, at the end.",
            ),
            ("cnn_jax.models.resnet", "cnn_jax.training.loop:train", "cnn_jax.taps:activations"),
            (
                Part("digits", "Result"),
                Part("digits", "Mistakes and doubts"),
                Part("digits", "One image on its way"),
            ),
        ),
        Topic(
            "Max pooling",
            ("Max Pool",),
            (
                "The slides ask how many parameters there are, and how to compute gradients. None; "
                "and the gradient goes to where each maximum was, and to nowhere else.",
            ),
            (
                f"{_OPS}.pooling:max_pool",
                f"{_OPS}.unpooling:max_unpool",
                f"{_WORKED}:pooling_example",
            ),
            _worked("Max pooling and its gradient"),
        ),
        Topic(
            "Invariance to small shifts",
            ("Invariance of maxpooling",),
            (
                "Pooling makes the features depend less on where exactly something is. The "
                "slide's line of four units, and a photograph's edges measured.",
            ),
            (f"{_WORKED}:pooling_invariance",),
            _worked("Invariance to small translations"),
        ),
        Topic(
            "Learned invariances",
            ("Learned invariances",),
            (
                "The maximum over detectors instead of places: the network can learn what it is to "
                "be invariant to, such as the angle of a stroke.",
            ),
            (f"{_OPS}.maxout:maxout", f"{_WORKED}:learned_invariance"),
            _worked("Learned invariance"),
        ),
        Topic(
            "Pooling with downsampling, for images of any size",
            ("Pooling with downsampling",),
            (
                "Fewer places than pixels make what follows cheaper. Where their number is fixed "
                "instead of their distance, images of any size end in features of one length.",
            ),
            (
                f"{_OPS}.adaptive:spatial_pyramid_pool",
                f"{_OPS}.adaptive:adaptive_avg_pool",
                f"{_OPS}.pooling:global_avg_pool",
            ),
            _worked(
                "Pooling with downsampling", "Pooling makes features of one length from any image"
            ),
        ),
        Topic(
            "Strided convolution",
            ("Strided convolution", "Strided convolution (contd)"),
            ("Downsampling within the convolution, at a quarter of the cost.",),
            (f"{_WORKED}:strided_convolution", f"{_OPS}.convolution:conv"),
            _worked("Strided convolution"),
        ),
        Topic(
            "Zero padding",
            ("Zero padding",),
            ("Without zeros at the border every layer makes the map smaller.",),
            (f"{_WORKED}:zero_padding", f"{_OPS}.geometry:paddings"),
            _worked("Zero padding"),
        ),
        Topic(
            "Connections: local, tiled, shared, dense",
            ("Connections",),
            (
                "The four kinds of layer side by side: a weight for each connection, kernels that "
                "take turns, one kernel for all, and all connections that there are.",
            ),
            (f"{_WORKED}:connections", f"{_OPS}.local:local_conv", f"{_OPS}.local:tiled_conv"),
            (Part("convolution", "Parameter sharing", ("Four kinds of layer",)),),
        ),
    ),
    Part("convolution", "Kinds of pooling", ("maximum",)),
)

BACKPROPAGATION = Chapter(
    "backpropagation",
    "Backpropagation through a convolution",
    "Both gradients of a convolution are convolutions again. The lecture derives them by hand for "
    "a 3×3 input and a 2×2 filter; here the derivation is made by differentiating the operation, "
    "symbol by symbol.",
    (
        Topic(
            "Forward, and both gradients",
            (
                "CNN & Backpropagation-1",
                "CNN & Backpropagation-2",
                "CNN & Backpropagation-3",
                "CNN & Backpropagation-4",
                "CNN & Backpropagation-5",
            ),
            (
                "Every output is a sum of products, and so is every derivative. The filter's "
                "gradient is the input, convolved with the gradient of the output. The input's is "
                "the gradient of the output, padded all around, convolved with the filter turned "
                "by half a turn.",
            ),
            (
                f"{_OPS}.convolution_gradients:conv_filter_gradient",
                f"{_OPS}.convolution_gradients:conv_input_gradient",
                f"{_WORKED}:backpropagation",
            ),
            _worked("Backpropagation, symbol by symbol"),
            differs=(
                "Slide 4 prints ∂L/∂x₂₂ with ∂L/∂o₁₂ f₂₂ + ∂L/∂x₁₂ f₂₁ at its start. The "
                "derivation gives ∂L/∂o₁₁ f₂₂ + ∂L/∂o₁₂ f₂₁: an index slipped, and an x stands "
                "for an o.",
                "Slide 4 calls ∂L/∂x the gradient with respect to the filter; it is that of the "
                "input.",
                "The sign ⊗ of slide 5 is a full convolution, which pads the 2×2 gradient to "
                "4×4; that of slide 3 has no padding. Without, the sizes do not fit.",
            ),
        ),
        Topic(
            "The same in general",
            ("CNN & Backpropagation-5",),
            (
                "With strides the output's gradient is spread apart by zeros first, with dilation "
                "the roles of stride and dilation change places, and groups stay among themselves.",
            ),
            (
                f"{_OPS}.convolution_gradients:conv_filter_gradient",
                f"{_WORKED}:closed_form_gradients",
            ),
            _worked("Closed-form gradients in general"),
        ),
    ),
    Part("convolution", "Backpropagation, symbol by symbol", ("The gradient of the filter",)),
)


def _module(*captions: str) -> tuple[Part, ...]:
    """Diagrams of modules."""
    return (Part("architectures", "Modules", captions),)


ARCHITECTURES = Chapter(
    "architectures",
    "Architectures",
    "Ten years of networks. Their sizes are not copied from a table: each network is defined in "
    "the library, traced, and its parameters, costs and receptive fields are read off its program.",
    (
        Topic(
            "The networks, and the ImageNet challenge",
            ("CNN Architectures", "ImageNet Challenge"),
            (
                "The errors are those that were published for ImageNet; the costs are counted "
                "here, and the whole page of the command has the table of all networks.",
                "Below, a network of the list, EfficientNet-Lite0, names what is on the sample "
                "photographs. It comes with the set-up.",
            ),
            ("cnn_jax.models.registry:model_names", "cnn_jax.models.published"),
            (
                Part("architectures", "Error against cost"),
                Part("classify", "Classes"),
            ),
        ),
        Topic(
            "AlexNet",
            ("AlexNet",),
            (
                "The network that began it: five convolutions and three dense layers, and most of "
                "the weights in the first dense one.",
            ),
            ("cnn_jax.models.alexnet", "cnn_jax.programs.layer_table:analyse_model"),
            (
                Part(
                    "alexnet",
                    "Layers",
                    columns=(
                        "layer",
                        "operation",
                        "output",
                        "parameters",
                        "MACs",
                        "receptive field",
                    ),
                ),
            ),
            ("alexnet", "alexnet_grouped", "alexnet_torchvision"),
            differs=(
                "The slide's layers see all channels, which makes "
                "{architectures[alexnet][params]:,} parameters. The paper's network ran on two "
                "GPUs, and three of its convolutions see the channels of their own GPU only: "
                "{architectures[alexnet_grouped][params]:,}.",
                "The slide normalises after pooling, as Caffe's copy of the network does; the "
                "paper before it.",
            ),
        ),
        Topic(
            "ZFNet",
            ("ZFNet",),
            (
                "AlexNet with a finer first layer, as a look at AlexNet's filters had suggested, "
                "and with wider ones behind.",
            ),
            ("cnn_jax.models.zfnet",),
            networks=("zfnet", "zfnet_512_1024_512"),
            differs=(
                "The 11.7 % are another entry's to the challenge of 2013, several networks "
                "together. The paper gives 16.0 % for one network of these widths, validated on "
                "ImageNet.",
            ),
        ),
        Topic(
            "VGG-16 and VGG-19",
            ("VggNet: VGG16", "VggNet: Vgg16 vs Vgg19", "Convolution Filter-2"),
            (
                "Nothing but 3×3 convolutions and poolings. The lecture adds up memory and "
                "parameters layer by layer; its columns stand at the right of the counted ones.",
            ),
            ("cnn_jax.models.vgg", "cnn_jax.programs.layer_table:analyse_model"),
            (
                Part(
                    "vgg16",
                    "Layers",
                    columns=("layer", "output", "numbers", "parameters", "weights")
                    + ("slide: layer", "slide: memory", "slide: parameters"),
                ),
                Part("vgg16", "In all"),
            ),
            ("vgg16", "vgg19"),
            differs=(
                "The slide's total of 24M numbers, 96 MB, is a slip: its own rows add up to "
                "{architectures[vgg16][activations]:,} numbers, "
                "{architectures[vgg16][activation_mb]:.2f} MB.",
                "Its 138M parameters leave the biases out; with them there are "
                "{architectures[vgg16][params]:,}.",
                "These slides still carry the heading of an earlier one, Convolution Filter-2.",
            ),
        ),
        Topic(
            "GoogLeNet and inception",
            ("GoogleNet", "Naive inception", "Inception"),
            (
                "Filters of several sizes side by side. The naive module pays for them with every "
                "channel of its input; 1×1 convolutions in front reduce these first. The captions "
                "tell what that saves.",
            ),
            (
                "cnn_jax.models.googlenet:naive_inception",
                "cnn_jax.models.googlenet:inception",
                "cnn_jax.models.googlenet",
            ),
            _module("Naive inception", "Inception"),
            ("googlenet", "googlenet_torchvision"),
            differs=(
                "The slide says 5 million parameters. There are "
                "{architectures[googlenet][params]:,} with the dense layer at the end, which the "
                "network has although the slide says it has none; 5,973,552 without it. By that "
                "count AlexNet has 9 times as many and VGG-16 20 times, not 12 and 27.",
                "The 6.7 % are those of seven networks on 144 crops an image; one crop of one "
                "network is near 10.07 %.",
                "22 layers are those of the longest path; "
                "{architectures[googlenet][weighted_layers]} have weights.",
            ),
        ),
        Topic(
            "ResNet",
            ("ResNet: Observation", "ResNet", "Resnet: Skip Connection"),
            (
                "Deeper plain networks got worse, even on the images they were trained on. "
                "The skip connection gives each block the identity to begin with, and its layers "
                "learn what is to be added.",
            ),
            (
                "cnn_jax.models.resnet:basic_block",
                "cnn_jax.models.resnet:bottleneck_block",
                "cnn_jax.models.resnet",
            ),
            _module("Residual (basic)", "Bottleneck:", "Bottleneck with projection"),
            ("resnet18", "resnet50", "resnet152"),
            differs=(
                "3.57 % is the error of six networks together on the test set; one of 152 layers "
                "reaches 5.71 % on ten crops.",
            ),
        ),
        Topic(
            "Wide ResNet",
            ("Wide Resnet",),
            ("More channels instead of more layers. The slide's four blocks, as they are traced.",),
            ("cnn_jax.models.wide_resnet:basic_block", "cnn_jax.models.wide_resnet"),
            _module(
                "Basic, pre-activated", "Bottleneck, pre-activated", "Basic-wide", "Wide-dropout"
            ),
            ("wrn_28_10", "wide_resnet50_2"),
        ),
        Topic(
            "DenseNet",
            ("DenseNet",),
            ("Each layer sees the outputs of all layers before it: maps are joined, not added.",),
            ("cnn_jax.models.densenet:dense_layer", "cnn_jax.models.densenet"),
            _module("Dense block"),
            ("densenet121", "densenet201"),
        ),
        Topic(
            "SENet, ResNeXt, MobileNets, NASNet, EfficientNet",
            ("CNN Architectures",),
            (
                "The rest of the lecture's list: channels weighed by what the whole map says, "
                "grouped convolutions, depthwise ones between narrow ends, cells found by a "
                "search, and depth, width and resolution scaled together.",
            ),
            (
                "cnn_jax.models.senet",
                "cnn_jax.models.resnext",
                "cnn_jax.models.mobilenet_v2",
                "cnn_jax.models.nasnet",
                "cnn_jax.models.efficientnet",
            ),
            _module("Squeeze and excitation", "ResNeXt", "Inverted residual"),
            (
                "legacy_seresnet50",
                "resnext50_32x4d",
                "mobilenet_v2",
                "nasnetamobile",
                "efficientnet_b0",
            ),
        ),
        Topic(
            "The comparison",
            ("Comparison of CNN architecture",),
            ("The lecture's table beside what is counted and published, row by row.",),
            ("cnn_jax.models.published", "cnn_jax.programs.layer_table:analyse_model"),
            (Part("architectures", "The lecture's table"),),
        ),
    ),
    Part("architectures", "Error against cost"),
)

TASKS = Chapter(
    "tasks",
    "Computer vision tasks",
    "Where is it, which pixels are it, and how many are there? Small networks of each kind were "
    "trained on drawn shapes for a minute or two while this gallery was made, so that the whole "
    "fits into a coffee break; the guides say what they reach when trained to the end.",
    (
        Topic(
            "Classification and localisation",
            ("Computer Vision Tasks",),
            (
                "One object, its class and its box: a classifier with a second head that predicts "
                "four numbers. The box is learnt first: it and the true one share "
                "{localize[evaluation][mean_iou]:.2f} of their union, on average over "
                "{localize[evaluation][examples]} test images. What the shape is takes longer: of "
                "the names {localize[evaluation][top1_error]:.2f} are wrong, where guessing has "
                ".88 wrong and the whole recipe, `localizer_shapes`, .08.",
            ),
            ("cnn_jax.tasks.localization", "cnn_jax.models.localization"),
            (Part("localize", "Evaluation"), Part("localize", "Boxes")),
        ),
        Topic(
            "Semantic segmentation",
            ("Semantic Segmentation-1", "Semantic Segmentation-2", "Semantic Segmentation-3"),
            (
                "A class for every pixel. To keep the image's size through all layers would be "
                "too expensive, so the network goes down and comes up again: a U-Net, with "
                "transposed convolutions on its way up. What is an object is learnt first, and "
                "of which class next: the mean IoU of the classes is "
                "{segment[evaluation][mean_iou]:.2f} here, and .91 after the whole recipe, "
                "`unet_shapes`.",
            ),
            (
                "cnn_jax.models.unet",
                "cnn_jax.models.segnet",
                f"{_OPS}.transposed:conv_transpose",
                f"{_OPS}.unpooling:max_unpool",
            ),
            (Part("segment", "Evaluation"), Part("segment", "Masks")),
        ),
        Topic(
            "R-CNN, Fast R-CNN, Faster R-CNN",
            (
                "Object identification: R-CNN",
                "Object identification: Fast R-CNN",
                "Object identification: Faster R-CNN",
            ),
            (
                "R-CNN sends every proposed region through the network by itself. Fast R-CNN "
                "sends the image once and pools the regions from its features. Faster R-CNN "
                "proposes the regions by those features as well. Trained alike, on the same "
                "images, for forty steps: enough to compare their times, not to find much. Trained "
                "to the end they reach an AP50 of .706, .808 and .928.",
            ),
            (
                "cnn_jax.models.rcnn",
                "cnn_jax.models.fast_rcnn",
                "cnn_jax.models.faster_rcnn",
                f"{_OPS}.roi:roi_pool",
                "cnn_jax.tasks.detection:proposal_losses",
            ),
            (
                Part("compare_detectors", "Precision and time"),
                Part("compare_detectors", "The same images"),
            ),
        ),
        Topic(
            "Instance segmentation",
            ("Computer Vision Tasks",),
            (
                "A box, a class and a mask for each object: Mask R-CNN. At half the size, and "
                "trained for 220 steps, it finds some of the shapes and is sure of few: an AP50 "
                "of {detect[box_ap50][map]:.2f} of boxes and {detect[mask_ap50][map]:.2f} of "
                "masks, where the whole recipe, `maskrcnn_shapes`, reaches .90 and .88.",
            ),
            (
                "cnn_jax.models.mask_rcnn",
                "cnn_jax.tasks.detection:mask_loss",
                f"{_OPS}.roi:roi_align",
            ),
            (Part("detect", "Average precision"), Part("detect", "Found objects")),
        ),
    ),
    Part("detect", "Found objects"),
)

VISUALISATION = Chapter(
    "visualisation",
    "Looking inside",
    "What does a trained network look at, and what has it kept? Photographs are shown to "
    "EfficientNet-Lite0, trained on ImageNet, which comes with the set-up; the digits to the "
    "network that was trained for this gallery.",
    (
        Topic(
            "Filters",
            ("CNN: Visualization", "CNN: Visualization of Filters"),
            (
                "The weights of a first layer can be shown as images, as they see the image "
                "itself: edges, blobs and colours. EfficientNet-Lite0's are of 3×3 pixels only; "
                "`--model=resnet18 --weights=FILE` shows those of the slide's networks, where "
                "their published weights are at hand.",
            ),
            ("cnn_jax.visualize.filters:filter_picture",),
            (Part("filters", "Filters"),),
            differs=(
                "The slide's 64 filters of 11×11 are those of torchvision's AlexNet "
                "(`alexnet_torchvision`); the network of the lecture's AlexNet slide has 96.",
            ),
        ),
        Topic(
            "Activations",
            ("CNN: Visualization",),
            (
                "A photograph on its way through the network, and the patches that excite "
                "single channels the most.",
            ),
            ("cnn_jax.visualize.activations:peaks", "cnn_jax.taps:activations"),
            (
                Part("activations", "One image on its way"),
                Part("activations", "What excites a channel"),
            ),
        ),
        Topic(
            "Nearest neighbours and t-SNE",
            ("CNN: Nearest neighbour", "t-SNE: Last layer feature"),
            (
                "Images that lie near each other in the features of the last layer are of a kind, "
                "where neighbours in pixels only look alike. t-SNE draws that neighbourhood on a "
                "plane.",
            ),
            (
                "cnn_jax.visualize.embedding:nearest",
                "cnn_jax.visualize.embedding:tsne",
            ),
            (Part("embedding", "What lies near what"),),
        ),
        Topic(
            "Saliency by occlusion",
            ("Saliency via Occlusion",),
            (
                "A grey square covers the image place by place, and the probability of the class "
                "is written down each time: where it falls, the network looks.",
            ),
            ("cnn_jax.visualize.occlusion:occlusion",),
            (Part("occlusion", "Occlusion"),),
        ),
        Topic(
            "Saliency by backpropagation, plain and guided",
            (
                "CNN: Saliency via Backprop",
                "CNN: Guided Backpropagation",
                "Guided backpropagation",
            ),
            (
                "The derivative of the class's score with respect to each pixel, its absolute "
                "value, the largest of the three colours: one backward pass. Guided "
                "backpropagation and the deconvnet change only how a ReLU passes gradients "
                "back. Grad-CAM and RISE are later answers to the same question; RISE averages "
                "over random masks, and is noisy here, where it has a tenth of its usual number.",
            ),
            (
                "cnn_jax.visualize.gradients:saliency",
                "cnn_jax.visualize.gradients:guided_backprop",
                "cnn_jax.visualize.gradients:deconvnet",
                "cnn_jax.visualize.relu_rule",
            ),
            (Part("saliency", "What the answer depends on"),),
        ),
    ),
    Part("saliency", "What the answer depends on"),
)

SYNTHESIS = Chapter(
    "synthesis",
    "Images that a network makes",
    "The gradient with respect to the pixels again, now followed: towards a class, away from the "
    "truth, towards a layer's dream, or back to an image from its features.",
    (
        Topic(
            "Gradient ascent",
            ("Gradient Ascent",),
            (
                "The image that a class likes best: I* = arg max f(I) + R(I), from an empty "
                "image, by steps along the gradient. The regulariser R decides whether one "
                "recognises anything.",
                "First the three classes of the lecture's slides, the cup, the dalmatian and the "
                "goose; then the ten digits.",
            ),
            ("cnn_jax.visualize.ascent:simonyan", "cnn_jax.visualize.regularizers"),
            (Part("ascent", "Gradient ascent"), Part("digits", "Gradient ascent")),
        ),
        Topic(
            "Synthetic and fantasy images",
            ("Synthetic images", "Fantasy image"),
            (
                "Images that mean nothing to us and of which the network is sure: by gradient, by "
                "evolution without any gradient, and from a photograph that is moved towards each "
                "class.",
            ),
            (
                "cnn_jax.visualize.fooling:by_gradient",
                "cnn_jax.visualize.fooling:by_evolution",
            ),
            (Part("fooling", "Fooling images"), Part("digits", "Fooling images")),
        ),
        Topic(
            "Adversarial perturbations",
            ("Adversarial Perturbations",),
            (
                "A change that nobody sees, and another answer. First any wrong class, by 2 of 255 "
                "levels of a colour at most, and how little is enough for it; then the lecture's "
                "own, a koala of an elephant, by 4 at most.",
            ),
            (
                "cnn_jax.attacks.gradient:pgd",
                "cnn_jax.attacks.gradient:fgsm",
                "cnn_jax.attacks.deepfool:deepfool",
            ),
            (
                Part("adversarial", "Result"),
                Part("adversarial", "Images"),
                Part("adversarial", "Budget"),
                Part("koala", "Images"),
            ),
        ),
        Topic(
            "Universal perturbations",
            ("Universal Adversarial Perturbations",),
            (
                "One perturbation for all images, made of a few of them and tried on others that "
                "it was not made of: for the network of the digits, by .3 of the way from black to "
                "white.",
            ),
            ("cnn_jax.attacks.universal:universal_deepfool",),
            (
                Part("universal_perturbation", "Result"),
                Part("universal_perturbation", "Perturbation"),
                Part("universal_perturbation", "Images it takes"),
            ),
        ),
        Topic(
            "DeepDream",
            ("Deep Dream-1", "Deep Dream-2", "Deep Dream-3"),
            (
                "Take the activations of a layer as their own gradient, ∂L/∂h = h, and follow it "
                "down to the pixels: whatever the layer sees, it sees more of it.",
            ),
            ("cnn_jax.visualize.dream:dream",),
            (Part("dream", "Dream"),),
        ),
        Topic(
            "Feature inversion",
            ("Feature Inversion",),
            (
                "An image is sought whose features are those of a given one. What comes back from "
                "a layer is what the layer has kept.",
            ),
            ("cnn_jax.visualize.inversion:invert",),
            (Part("feature_inversion", "Feature inversion"),),
            differs=(
                "The slide's loss has a plain norm. The paper's, and this one, is its square, "
                "divided by that of the features, so that one weight λ suits every layer.",
            ),
        ),
        Topic(
            "Style transfer",
            ("CNN: Visualization",),
            (
                "Content from one picture's activations, style from the correlations between "
                "another one's channels.",
            ),
            ("cnn_jax.visualize.style:transfer",),
            (Part("style", "Style transfer"),),
        ),
    ),
    Part("dream", "Dream", ("The dream",)),
)

RESOURCES = Chapter(
    "resources",
    "A network to play with",
    "The lecture ends on two links to networks that train in the browser.",
    (
        Topic(
            "The playground",
            ("Resources",),
            (
                "ConvNetJS and TensorFlow's playground are where many have seen a network "
                "learn for the first time. `./launch.sh playground` is this project's own: a "
                "convolutional network that trains in the page, and that can be looked into and "
                "fooled as on the pages before.",
            ),
            ("cnn_jax.playground.page:render",),
        ),
    ),
)

CHAPTERS = (
    CONVOLUTION,
    ADVANTAGES,
    POOLING,
    BACKPROPAGATION,
    ARCHITECTURES,
    TASKS,
    VISUALISATION,
    SYNTHESIS,
    RESOURCES,
)
