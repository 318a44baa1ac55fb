"""Every field of a run with the paper's value; other configs override some."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """Returns the paper's multi-class setting: ViT-B, 448 to 392, batch 16."""
  config = ConfigDict()
  # "multi_class": one model for all categories; "single_class": one for each,
  # in turn; "zero_shot": no training, scores by INP distance.
  config.protocol = "multi_class"
  config.zero_shot_checkpoint = (
    ""  # zero_shot: workdir of a run trained elsewhere
  )
  config.seed = 1  # initial values and order of the data
  config.batch_size = 16  # images per step, over all devices
  config.epochs = 200  # passes over the training images
  config.steps = 0  # steps of training; above 0 it replaces epochs

  config.model = ConfigDict()
  # dinov2reg_vit_{small,base,large}_14 (4 registers) or dinov2_vit_..._14; or
  # demo_vit_tiny_14, which the package holds.
  config.model.encoder = "dinov2reg_vit_base_14"
  # "": the encoder's file on this machine, or else from the Hugging Face Hub;
  # "original": its PyTorch file; a .safetensors, .npz or .pth file; "random".
  config.model.encoder_weights = ""
  config.model.num_prototypes = 6  # INPs per image (Fig. 6)
  config.model.use_inps = True  # False: plain self-attention decoder (Table 5)
  config.model.dtype = "bfloat16"  # of the computation; parameters are float32

  config.loss = ConfigDict()
  config.loss.coherence_weight = 0.2  # lambda; 0: no coherence loss (Table 5)
  config.loss.gamma = 3.0  # of soft mining; 0: no mining (Table 5)

  config.optimizer = ConfigDict()
  config.optimizer.peak_learning_rate = 1e-3
  config.optimizer.final_learning_rate = 1e-4
  config.optimizer.warmup_steps = 100  # at most a fifth of the run is taken
  config.optimizer.weight_decay = 1e-4
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.999
  config.optimizer.eps = 1e-10
  config.optimizer.max_norm = 0.1  # global norm the gradient is clipped to

  config.data = ConfigDict()
  # demo (procedural), mvtec, mpdd, btad, mvtec_loco, mvtec_ad2, visa, realiad,
  # or folder (your own images).
  config.data.layout = "mvtec"
  config.data.root = ""  # folder of the data set, as its makers lay it out
  config.data.categories = ()  # names; all that are there if empty
  # Several data sets in one model, instead of layout and root: (layout, root,
  # categories) of each.
  config.data.sources = ()
  config.data.tfds = ""  # name of a TFDS data set, instead of all the above
  config.data.tfds_dir = ""  # folder or bucket with TFDS data sets
  config.data.realiad_images = ""  # folder, e.g. realiad_512; "": the largest
  config.data.realiad_jsons = (
    "realiad_jsons"  # or realiad_jsons_sv, ..._fuiad_0.1
  )
  config.data.sampling = "uniform"  # or all alike: "category", "dataset"
  # Few-shot: images per category, drawn by the seed, each in 22 ways; 0: all.
  config.data.shots = 0
  config.data.resize = 448  # pixels, height after resizing
  config.data.crop = 392  # pixels, height of the centre crop; 14 divides it
  config.data.resize_width = 0  # pixels; 0: as the height
  config.data.crop_width = 0  # pixels; 0: as the height
  config.data.num_workers = 0  # processes that decode images; 0: threads
  config.data.num_threads = 16  # threads that decode images

  config.evaluation = ConfigDict()
  config.evaluation.every_steps = 0  # also while training; 0: at the end only
  config.evaluation.batch_size = 16  # images, over all devices
  config.evaluation.size = 256  # pixels, side of anomaly maps and masks
  config.evaluation.top_fraction = 0.01  # of the map, for the image score
  config.evaluation.max_fpr = 0.3  # where AUPRO is cut
  config.evaluation.exact = False  # sort all pixels; much memory and time
  config.evaluation.grid_images = 24  # images in the qualitative grid

  config.checkpoint = ConfigDict()
  config.checkpoint.every_steps = 1000  # and at the end
  config.checkpoint.keep = 2  # newest checkpoints kept

  config.log = ConfigDict()
  config.log.every_steps = 10
  config.log.tensorboard = True

  config.mesh = ConfigDict()
  config.mesh.data = -1  # devices along the batch; -1: all that are left
  config.mesh.fsdp = 1  # devices over which parameters are split
  return config
