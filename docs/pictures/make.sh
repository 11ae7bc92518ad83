#!/usr/bin/env bash
# Makes the documents' pictures of each technique: a network trained on the drawn shapes, photographs
# that ship with scikit-learn. Some minutes after the training.
set -euo pipefail
cd -- "$(dirname -- "$0")/../.."
run=runs/shapes
./launch.sh train --recipe=shapes --workdir=$run
photos=$(.venv/bin/python -c 'import pathlib, sklearn.datasets as d; print(pathlib.Path(d.__file__).parent / "images")')
flower=$photos/flower.jpg china=$photos/china.jpg

on() { # on NAME PICTURE --flags: runs an experiment and keeps its picture
  local name=$1 picture=$2
  shift 2
  ./launch.sh "$name" --workdir=$run --output="runs/pictures/$name" "$@"
  cp "runs/pictures/$name/$picture.png" "docs/pictures/$name.png"
}

on saliency maps --image="$china" --image="$flower"
on occlusion occlusion --image="$china" --image="$flower" --window=8 --stride=2
on ascent ascent --target=0,1,2,3,4,5,6,7
on feature_inversion feature_inversion --image="$china" --image="$flower"
on dream dream --image="$flower" --layers=group2 --octaves=4
on style result --image="$china" --style="$flower" --longest_side=320
on fooling fooling --image="$flower"
on adversarial adversarial --image="$china" --image="$flower" --eps=4/255

# the playground, in training and with a layer opened; needs Chromium, node and `npm ci`
mkdir -p build
./launch.sh playground --export=build/page.html
node tests/playground/scenarios.js pictures build/page.html docs/pictures
.venv/bin/python - docs/pictures/playground*.png <<'PALETTE'
import sys
from PIL import Image
for path in sys.argv[1:]:
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
PALETTE
