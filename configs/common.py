"""Every field of a run with the paper's value; other configs override some."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """Returns the paper's multi-class setting.

  The encoder is ViT-B, images are resized to 448 and cropped to 392 pixels, and
  a batch has 16 images.
  """
  config = ConfigDict()
  # "multi_class": one model for all categories; "single_class": one for each
  # in turn; "zero_shot": no training, scores are INP distances.
  config.protocol = "multi_class"
  # For zero_shot: the workdir of a run that was trained on other data.
  config.zero_shot_checkpoint = ""
  # The workdir of another run, or of a converted checkpoint, whose newest
  # parameters training starts from instead of random ones. The encoder must be
  # the same; images, sizes and steps may differ. Not read again to resume.
  config.init_from = ""
  config.seed = 1  # initial values and order of the data
  config.batch_size = 16  # images per step, over all devices
  config.epochs = 200  # passes over the training images
  config.steps = 0  # training steps; if above 0, used instead of epochs

  # What is kept of the training images, so that an epoch need not compute it
  # again: "off": nothing; "images": decoded, resized and cropped, from the
  # first epoch on; "features": what the encoder makes of them, computed before
  # the first step, so that training runs only what is trained. Changes the
  # speed alone; docs/scaling.md has the sizes.
  config.cache = "off"
  # Folder of the caches; "": inp_former_jax/training in the user's cache folder
  # ($XDG_CACHE_HOME, or ~/.cache), where runs on the same images share them.
  # It may be deleted between runs.
  config.cache_dir = ""

  config.model = ConfigDict()
  # dinov2reg_vit_{small,base,large}_14 (4 registers), dinov2_vit_..._14, or
  # demo_vit_tiny_14, which comes with the package.
  config.model.encoder = "dinov2reg_vit_base_14"
  # "" takes the encoder's file from this machine, or else from the Hugging Face
  # Hub; "original" takes its PyTorch file. Otherwise "random", or the path of a
  # .safetensors, .npz or .pth file.
  config.model.encoder_weights = ""
  config.model.num_prototypes = 6  # INPs per image (Fig. 6)
  config.model.use_inps = True  # False: plain self-attention decoder (Table 5)
  config.model.dtype = "bfloat16"  # compute dtype; parameters are float32
  # The fastest form for the devices; or xla, by_head (CPU), cudnn (NVIDIA), or
  # pallas (TPU).
  config.model.attention = "auto"
  # True: what happens within bottleneck and decoder blocks is computed again
  # for the gradient instead of kept: less memory, more time. docs/tpu.md.
  config.model.remat = False

  config.loss = ConfigDict()
  config.loss.coherence_weight = 0.2  # lambda; 0: no coherence loss (Table 5)
  config.loss.gamma = 3.0  # exponent of soft mining; 0: no mining (Table 5)

  config.optimizer = ConfigDict()
  config.optimizer.peak_learning_rate = 1e-3  # after the warm-up
  config.optimizer.final_learning_rate = 1e-4  # at the end of the run
  config.optimizer.warmup_steps = 100  # a fifth of the run at most
  config.optimizer.weight_decay = 1e-4  # decoupled
  config.optimizer.b1 = 0.9  # decay of the first moments
  config.optimizer.b2 = 0.999  # decay of the second moments
  config.optimizer.eps = 1e-10  # added to the denominator
  config.optimizer.max_norm = 0.1  # largest global norm of the gradient

  config.data = ConfigDict()
  # demo (procedural), mvtec, mpdd, btad, mvtec_loco, mvtec_ad2, visa, realiad,
  # or folder (your own images).
  config.data.layout = "mvtec"
  config.data.root = ""  # folder of the data set, laid out as published
  config.data.categories = ()  # names of categories; all if empty
  # Several data sets for one model, each as (layout, root, categories); used
  # instead of layout and root.
  config.data.sources = ()
  config.data.tfds = ""  # name of a TFDS data set, used instead of the above
  config.data.tfds_dir = ""  # folder or bucket with TFDS data sets
  # Folder of Real-IAD's images, e.g. realiad_512; "": the largest one there.
  config.data.realiad_images = ""
  # Folder of Real-IAD's lists: realiad_jsons, realiad_jsons_sv, ..._fuiad_0.1.
  config.data.realiad_jsons = "realiad_jsons"
  # "uniform" draws every image equally often, "category" every category, and
  # "dataset" every data set of a mixture.
  config.data.sampling = "uniform"
  # Few-shot training: images per category, drawn by the seed and each used in
  # 22 ways; 0: all images.
  config.data.shots = 0
  config.data.resize = 448  # pixels, height after resizing
  config.data.crop = 392  # pixels, height of the centre crop; 14 divides it
  config.data.resize_width = 0  # pixels; 0: the same as the height
  config.data.crop_width = 0  # pixels; 0: the same as the height
  # Processes that decode images; 0: threads; -1: threads on up to 4 cores, else
  # a process on each core but one, at most 16 and one per 128 images.
  config.data.num_workers = -1
  config.data.num_threads = 16  # threads that decode images
  # An unreadable training image: False stops; True takes the next readable one
  # and lists it in unreadable_images.jsonl of the workdir. Not for test images.
  config.data.skip_unreadable = False

  config.evaluation = ConfigDict()
  # Steps between evaluations; 0: only at the end.
  config.evaluation.every_steps = 0
  config.evaluation.batch_size = 16  # images, over all devices
  config.evaluation.size = 256  # pixels, side of anomaly maps and masks
  # Share of a map's pixels, the highest, whose mean is the image score.
  config.evaluation.top_fraction = 0.01
  config.evaluation.max_fpr = 0.3  # false positive rate at which AUPRO ends
  config.evaluation.exact = False  # True: sort all pixels; much memory and time
  config.evaluation.grid_images = 24  # images in the qualitative grid

  # Thresholds from normal images that the model has not been trained on.
  config.calibration = ConfigDict()
  # Share of each category's normal training images that are held out for it
  # and not trained on, at most 100 images; 0: none. Data sets with validation
  # images use those instead.
  config.calibration.holdout = 0.0
  config.calibration.image_rate = 0.05  # normal images that may be false alarms
  # Pixels of normal images that may be false alarms.
  config.calibration.pixel_rate = 0.001

  config.checkpoint = ConfigDict()
  # Steps between checkpoints; 0: only the last step, which is always saved;
  # -1: a tenth of the run, at most 1000.
  config.checkpoint.every_steps = -1
  # A checkpoint is saved after so many minutes without one; 0: only by steps.
  config.checkpoint.every_minutes = 10.0
  # Where checkpoints are saved in place of the workdir: a folder in a bucket,
  # such as "gs://bucket/run"; "": in the workdir.
  config.checkpoint.folder = ""
  config.checkpoint.keep = 2  # number of newest checkpoints to keep
  # Metric of the evaluations during training (evaluation.every_steps), such as
  # "image_auroc", by whose mean the best checkpoint is kept beside the newest
  # ones; "": none. Choosing by test images makes their metrics too good.
  config.checkpoint.best = ""
  # The checkpoint that --mode=eval takes, "newest" or "best". A run is always
  # resumed from the newest one.
  config.checkpoint.use = "newest"

  config.log = ConfigDict()
  config.log.every_steps = 10  # steps between lines of the log
  config.log.tensorboard = True  # also write TensorBoard events

  config.mesh = ConfigDict()
  config.mesh.data = -1  # devices over which a batch is split; -1: all the rest
  config.mesh.fsdp = 1  # devices over which parameters are split
  return config
