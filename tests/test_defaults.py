"""The config shows the paper's values; the code has each of them once."""

from inp_former_jax.configs import common
from inp_former_jax.evaluation import metrics
from inp_former_jax.inference import scoring
from inp_former_jax.models import inp_former
from inp_former_jax.training import losses, optimizer


def test_the_config_has_the_defaults_of_the_code():
  config = common.get_config()
  assert config.loss.gamma == losses.GAMMA
  assert config.loss.coherence_weight == losses.COHERENCE_WEIGHT
  assert config.model.num_prototypes == inp_former.NUM_PROTOTYPES
  assert config.evaluation.size == scoring.EVALUATION_SIZE
  assert config.evaluation.top_fraction == scoring.TOP_FRACTION
  assert config.evaluation.max_fpr == metrics.MAX_FPR
  settings = config.optimizer
  assert (settings.b1, settings.b2) == (optimizer.B1, optimizer.B2)
  assert settings.eps == optimizer.EPS
  assert settings.weight_decay == optimizer.WEIGHT_DECAY
  assert settings.max_norm == optimizer.MAX_NORM
  assert settings.warmup_steps == optimizer.WARMUP_STEPS
  assert settings.peak_learning_rate == optimizer.PEAK_LEARNING_RATE
  assert settings.final_learning_rate == optimizer.FINAL_LEARNING_RATE
