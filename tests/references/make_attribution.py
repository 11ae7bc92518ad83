"""Writes attribution.npz: what captum, in float64, gives for two small networks.

Run with torch, captum, zennit and scikit-image in the environment:
python tests/references/make_attribution.py

Arrays are laid out as in cnn_jax (channels last, kernels [h, w, in, out], a flattened map's entries
in that order). zennit, by other people, must agree on guided backpropagation and the deconvnet,
since captum gives the plain gradient for a ReLU that it does not see.
"""

import pathlib
from collections import OrderedDict

import captum.attr as ca
import numpy as np
import torch
import zennit.attribution
import zennit.composites
from skimage.metrics import structural_similarity
from torch import nn

SHAPE, CLASSES = (3, 8, 7), 3
SEED = 13  # the first with no map of zeros
TARGETS = torch.tensor([2, 0])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.relu1(self.bn(self.stem(x)))
        x = self.relu3(x + self.conv2(self.relu2(self.conv1(x))))
        return self.head(x.mean(dim=(2, 3)))


def plain():
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 4, 3, padding=1),
            relu1=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            conv2=nn.Conv2d(4, 5, 2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            head=nn.Linear(5 * 3 * 2, CLASSES),
        )
    )


def fill(net, rng):
    for tensor in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
        values = rng.normal(size=tuple(tensor.shape))
        tensor.data = torch.from_numpy(2 * values / np.sqrt(max(tensor[0].numel(), 1)))
    if hasattr(net, "bn"):
        net.bn.running_var.abs_()
    return net.double().eval()


def channels_last(x):
    return np.moveaxis(x.detach().numpy(), 1, -1).copy()


def weights(net, flattened):
    """Yield path, array in the layout of cnn_jax."""
    for name, tensor in net.state_dict().items():
        module, leaf = name.rsplit(".", 1)
        array = tensor.numpy()
        if leaf == "num_batches_tracked":
            continue
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            if flattened:
                array = array.reshape(len(array), *flattened).transpose(0, 2, 3, 1)
            array = array.reshape(len(array), -1).T
        yield f"{module}/{leaf}", array.copy()


def zennit_gradient(net, composite, x):
    eye = torch.eye(CLASSES, dtype=torch.float64)[TARGETS]
    with zennit.attribution.Gradient(net, composite) as attributor:
        return attributor(x.clone(), eye)[1]


def main(seed=SEED):
    torch.Tensor.float = torch.Tensor.double  # captum rounds an occlusion map to float32
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(2, *SHAPE)))
    start = torch.from_numpy(rng.normal(size=(2, *SHAPE)))
    arrays = {
        "images": channels_last(x),
        "baseline": channels_last(start),
        "targets": TARGETS.numpy(),
    }
    for name, net, flattened in (("plain", plain(), (5, 3, 2)), ("residual", Residual(), None)):
        net = fill(net, rng)
        layer = net.pool if name == "plain" else net.relu1
        probability = nn.Sequential(net, nn.Softmax(1))
        guided = ca.GuidedBackprop(net).attribute(x.clone(), target=TARGETS)
        deconvolved = ca.Deconvolution(net).attribute(x.clone(), target=TARGETS)
        for ours, composite in (
            (guided, zennit.composites.GuidedBackprop()),
            (deconvolved, zennit.composites.DeconvNet()),
        ):
            theirs = zennit_gradient(net, composite, x)
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12, atol=1e-14)
            assert not np.allclose(
                ours.numpy(), ca.Saliency(net).attribute(x, TARGETS, abs=False).detach().numpy()
            )
        integrated = ca.IntegratedGradients(net)
        occluded = {
            "sliding_window_shapes": (3, 3, 2),
            "strides": (3, 2, 2),
            "baselines": 0.25,
        }  # kept in float32
        cam = ca.LayerGradCam(net, layer).attribute(x, TARGETS, relu_attributions=True)
        results = {
            "logits": net(x).detach().numpy(),
            "gradient": ca.Saliency(net).attribute(x.clone(), TARGETS, abs=False),
            "gradient_times_input": ca.InputXGradient(net).attribute(x.clone(), TARGETS),
            "guided_backprop": guided,
            "deconvnet": deconvolved,
            "integrated_gradients": integrated.attribute(x, target=TARGETS, n_steps=50),
            "integrated_gradients_from": integrated.attribute(x, start, TARGETS, n_steps=50),
            "grad_cam": cam,
            "grad_cam_upsampled": ca.LayerAttribution.interpolate(cam, SHAPE[1:], "bilinear"),
            "guided_grad_cam": ca.GuidedGradCam(net, layer).attribute(
                x.clone(), TARGETS, interpolate_mode="bilinear"
            ),
            "occlusion": ca.Occlusion(net).attribute(x, target=TARGETS, **occluded),
            "occlusion_probability": ca.Occlusion(probability).attribute(
                x, target=TARGETS, **occluded
            ),
        }
        arrays |= {f"{name}/weights/{path}": array for path, array in weights(net, flattened)}
        for method, result in results.items():
            result = result if isinstance(result, np.ndarray) else channels_last(result)
            for i, one in enumerate(result):  # a reference of zeros would test nothing
                assert np.abs(one).max() > 1e-3, (name, method, i)
            arrays[f"{name}/{method}"] = result
    maps = rng.uniform(size=(2, 2, 16, 14))  # two pairs, the second alike
    maps[1, 1] = 0.3 * maps[1, 1] + 0.7 * maps[1, 0]
    maps = (maps - maps.min(axis=(2, 3), keepdims=True)) / np.ptp(maps, (2, 3))[..., None, None]
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    arrays["ssim/maps"] = maps
    arrays["ssim/result"] = np.array(
        [structural_similarity(a, b, data_range=1, **settings) for a, b in maps]
    )
    np.savez_compressed(pathlib.Path(__file__).with_name("attribution.npz"), **arrays)


if __name__ == "__main__":
    main()
