"""A training loop of your own, made of the package's parts.

python examples/custom_training.py
"""

import jax
import numpy as np
import optax
from flax import nnx

import inp_former_jax as inp
from inp_former_jax.data.demo.parts import write_demo_dataset

STEPS, BATCH, SIZE = 40, 8, 224

# 1. Images: here generated parts; any layout of configs/, or arrays of yours.
root = write_demo_dataset("workdir/custom/parts", seed=1)
data = inp.read_layout("mvtec", root, ["washer"])
sizes = inp.Preprocessing(resize=(SIZE, SIZE), crop=(SIZE, SIZE))
train, test = (
  np.stack([inp.load_image(record.image, sizes) for record in records])
  for records in (data.train, data.test)
)

# 2. The model; its encoder is frozen: no gradient, no optimizer state.
model = inp.create_model("demo_vit_tiny_14")
graphdef, trainable, frozen = inp.split(model)
optimizer = inp.make_optimizer(inp.warm_cosine(STEPS, warmup_steps=8))
opt_state = optimizer.init(trainable)


def loss_fn(trainable, frozen, images):
  output = nnx.merge(graphdef, trainable, frozen)(inp.normalise(images))
  return inp.losses.total_loss(output, gamma=3.0, coherence_weight=0.2)


@jax.jit
def train_step(trainable, opt_state, frozen, images):
  gradient = jax.grad(loss_fn, has_aux=True)
  grads, parts = gradient(trainable, frozen, images)
  updates, opt_state = optimizer.update(grads, opt_state, trainable)
  return optax.apply_updates(trainable, updates), opt_state, parts


# 3. The loop.
rng = np.random.default_rng(0)
for step in range(1, STEPS + 1):
  images = train[rng.choice(len(train), BATCH, replace=False)]
  trainable, opt_state, parts = train_step(trainable, opt_state, frozen, images)
  if step % 10 == 0:
    print(step, {name: round(float(loss), 3) for name, loss in parts.items()})

# 4. Distances, anomaly maps, scores, metrics.
output = nnx.merge(graphdef, trainable, frozen)(inp.normalise(test))
distance = inp.scoring.group_distance(
  output.encoder_groups, output.decoder_groups
)
maps = inp.scoring.anomaly_map(distance, grid=(16, 16), crop=(SIZE, SIZE))
labels = np.array([record.label for record in data.test])
print(inp.metrics.image_metrics(labels, inp.scoring.image_score(maps)))
