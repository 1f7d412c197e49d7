"""Every default of rc2l_jax, once, with its source. Experiments override a few lines of it.

Sources: [P] the RC²L paper (section 4.1 where nothing else is said); [M] MaskFormer (arXiv
2107.06278) and the semantic ResNet configs of its code; [D] our reading where the paper is silent.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The paper's VOC Train protocol on MaskFormer's ResNet-101."""
    config = ConfigDict()
    config.seed = 0

    # Schedule. All durations are in steps.
    config.num_steps = 120_000  # [P] VOC Train; VOC Aug 160k, Cityscapes 120k
    # [P] "we set the batch size to 16"; [D] that it is that of both kinds of images, each over all
    # devices.
    config.batch_size = 16
    config.unlabeled_batch_size = 16
    config.log_every_steps = 100
    config.eval_every_steps = 5_000
    config.checkpoint_every_steps = 1_000
    config.keep_checkpoints = 2  # the newest so many, and the best
    # So many steps in a row without a finite loss and gradient end the run. They change nothing.
    config.max_nonfinite_steps = 100
    # Pretrained weights: a folder, a file, a name on the Hugging Face hub, or a run directory,
    # whose newest teacher it is ("" for none).
    config.init_from = ""
    config.init_queries = "first"  # of a MaskFormer with more queries take the first; or "fresh"
    config.matcher = "host"  # "host": scipy in a callback; "device": optax
    config.dtype = "float32"  # "bfloat16": of activations; parameters and losses stay float32
    # Parts in which each device takes its batch, to save memory. A part's losses are divided by its
    # own counts: one with a single pseudo segment weighs as much as one with thirty.
    config.accumulate_steps = 1
    config.remat = False  # True: less memory, more time; see benchmarks/RESULTS.md
    config.optimizer_dtype = "float32"  # "bfloat16": of Adam's first moment
    # Where compiled programs are kept from run to run, on accelerators ("" for nowhere);
    # JAX_COMPILATION_CACHE_DIR, if set, wins. See `rc2l_jax.run.startup` for what is kept.
    config.compilation_cache = "~/.cache/rc2l_jax/xla"
    config.profile = False  # leave a trace of a few steps in the run directory
    # A training image that breaks after it was prepared (a bad disk, a cut copy). "error" ends the
    # run; "skip" names and counts it and takes another, for runs that cost more than a few images.
    config.on_bad_example = "error"
    # "skip" ends the run, too, beyond so many different ones a process: then it is not a few images
    # that are broken but the data set.
    config.max_bad_examples = 100

    # Optimiser.
    config.learning_rate = 1e-4  # [P]
    config.weight_decay = 1e-4  # [P]; none on norms and embeddings [M]
    config.backbone_lr_multiplier = 0.1  # [M]
    config.poly_power = 0.9  # [P]
    config.warmup_steps = 0  # [M] (semantic ResNet configs)
    config.grad_clip_norm = 0.01  # [M] global norm

    # Eq. 3 and 4.
    # alpha; 0 is supervised-only. [P] 2 on VOC Train 1/2, 1 on VOC Aug 1/4 (Table 4); [D] the same
    # for the other partitions.
    config.unsup_weight = 2.0
    # [D] Burn-in: before it the unlabelled terms weigh 0. CamVid 1/8, 6,000 steps from scratch:
    # 0.483 with 0, 0.474 with 1,000, 0.453 with 2,500.
    config.unsup_start_step = 0
    config.unsup_ramp_steps = 0  # [D] linear ramp of alpha after the burn-in
    # [D] tau of Eq. 4; warmed up as min(tau, 1 - 1 / (step + 1)). CamVid 1/8 (docs/study.md): 0.466
    # and 0.473 with 0.99, in two orders of the images, and 0.467 with 0.999; from another teacher
    # 0.442 with 0.99, and 0.439 with 0.95.
    config.ema_decay = 0.99

    # Segments and matching.
    config.max_segments = 32  # [D] slots M an image; the largest win, the rest is counted
    # [D] False counts void as background, as [M] does; padding, which [M] counts too, never counts.
    config.ignore_void = True
    config.match = ConfigDict()  # cost weights [M]
    config.match.class_weight = 1.0
    config.match.focal_weight = 20.0
    config.match.dice_weight = 1.0

    # Binary mask loss L_mask and the class term of Eq. 1.
    config.loss = ConfigDict()
    config.loss.class_weight = 1.0  # [M]
    config.loss.focal_weight = 20.0  # [M]
    config.loss.dice_weight = 1.0  # [M]
    config.loss.no_object_weight = 0.1  # [M]
    config.loss.focal_alpha = 0.25  # [M]
    config.loss.focal_gamma = 2.0  # [M]

    # Teacher predictions -> pseudo segments. On CamVid 1/8 (docs/study.md, "Terms, weights and
    # readings") no reading stands out: mIoU 0.466 and 0.473 with "semantic", pixel_threshold 0 and
    # alignment 0.5, in two orders of the images; 0.475 with threshold 0.5, 0.469 without alignment,
    # 0.470 with "query".
    config.pseudo = ConfigDict()
    config.pseudo.source = "query"  # [D] a segment a winning query; "semantic": a class
    config.pseudo.score_threshold = 0.7  # [D] "query": the query's class probability
    config.pseudo.mask_threshold = 0.5  # [D] "query": a pixel's mask probability
    config.pseudo.pixel_threshold = 0.7  # [D] "semantic": a pixel's class probability
    config.pseudo.class_alignment = 0.0  # [D] see `class_balance`; 1: as often as in the labels
    config.pseudo.min_area = 4  # [D] pixels of the mask grid
    # [D] Pixels that no segment covers: "unknown", no mask is compared there; or "negative",
    # outside of every segment, as the masks {0, 1} of Eqs. 5 to 10 say if they are taken literally.
    # CamVid 1/8: with 0.64 covered (pixel_threshold 0.9) "unknown" ends at 0.407 and 0.426 in two
    # orders, "negative" at 0.444 and 0.445; with "query", 0.90 covered, 0.448 and 0.454. From
    # scratch it is 0.408 and 0.392, and the teacher names less and less with "negative".
    config.pseudo.uncovered = "unknown"
    # [D] One segment a class, as in the ground truth: on CamVid 1/8 0.448 with "query", and 0.424
    # if they are not merged.
    config.pseudo.merge_same_class = True

    # Weak view x^w. [P] "short edge resize, random crop, random flip, and color augmentation".
    config.weak_color = True  # False: the teacher sees the image's own colours
    # Strong view x^s. [P] "all weak data augmentation methods and CutMix": geometry is the weak
    # view's, so that the masks fit.
    config.strong_color = "same"  # [D] colours of the weak view; "weak": drawn anew; "jitter"
    config.jitter = ConfigDict()  # for "jitter"; numbers of UniMatch's strong views
    config.jitter.probability = 0.8
    config.jitter.brightness = 0.5
    config.jitter.contrast = 0.5
    config.jitter.saturation = 0.5
    config.jitter.hue = 0.25  # of the circle
    config.jitter.grayscale = 0.2  # probability
    # CutMix: one box an image, as a share of its area.
    config.cutmix = ConfigDict()
    config.cutmix.probability = 1.0  # [D]
    config.cutmix.min_area = 0.25  # [D]
    config.cutmix.max_area = 0.5  # [D]
    config.cutmix.max_aspect = 2.0  # [D] the longer side over the shorter

    # Weights of Eq. 2 and the region losses.
    config.unsup = ConfigDict()
    config.unsup.rcc_weight = 1.0  # [P] beta_1
    config.unsup.smc_weight = 20.0  # [P] beta_2
    config.unsup.rmc_weight = 4.0  # [P] beta_3
    config.unsup.rfc_weight = 4.0  # [P] beta_4
    config.unsup.consistency_weight = 0.0  # [D] beta_0, the baseline of Table 3 row 1
    config.unsup.rmc_temperature = 0.5  # [D] tau_m of Eq. 5
    config.unsup.rfc_temperature = 0.5  # [D] tau_f of Eq. 8
    # CamVid 1/8, as above, beside 0.466 and 0.473 with these values: denominator "paper" 0.472,
    # union "semantic" 0.469, both temperatures 0.1 0.478; beside 0.442 from another teacher union
    # "max" 0.439 and both temperatures 1 0.442. None of them is beyond chance.
    # [D] or "paper": may fall to -1 / tau_m and -2 / tau_f, and its gradient does not fade.
    config.unsup.contrast_denominator = "with_positive"
    config.unsup.union = "normalized"  # [D] Union of Eq. 10; or "semantic", "max"
    # Inside L_mask of SMC and of the consistency baseline. [D] 20 to 1, so that beta_2 L_mask is
    # MaskFormer's own 20 focal + 1 dice. Read literally, L_mask is that sum already, and beta_2
    # comes on top: focal 20 and dice 1 here. On CamVid 1/8 that loses 0.066, and these gain 0.002.
    config.unsup.focal_weight = 1.0
    config.unsup.dice_weight = 0.05
    config.unsup.rcc_no_object = True  # [D] push unmatched queries to no-object, as Eq. 1 does
    config.unsup.deep_supervision = False  # [D] True: the losses act on every decoder layer

    # Model. All of [M] unless said.
    config.model = ConfigDict()
    config.model.backbone = "resnet101"  # [P]; resnet10, 18, 34, 50, 101, 152
    config.model.backbone_width = 64  # channels of the first stage
    config.model.stem = "basic"  # "deeplab": three 3x3 convolutions and a dilated res5 (R101c)
    config.model.norm = "frozen"  # "batch": synchronised over devices; "group": from scratch
    config.model.num_queries = 50  # [P] Table 5, of VOC; [D] the supervised baseline has as many
    config.model.pixel_dim = 256  # pixel decoder
    config.model.mask_dim = 256  # C
    config.model.hidden_dim = 256  # transformer decoder
    config.model.num_heads = 8
    config.model.ffn_dim = 2048
    config.model.num_decoder_layers = 6  # L
    config.model.dropout = 0.1

    # Data.
    config.data = ConfigDict()
    # "voc_semseg", "cityscapes_semseg", "camvid", "folder" (your own), "shapes" (drawn).
    config.data.name = ""
    config.data.dir = ""  # where the files lie; "" to use prepared records, or to download
    config.data.unlabeled_dir = ""  # any folder of images: they are the split "unlabeled"
    config.data.prepared_dir = "~/tensorflow_datasets"  # where prepared records are kept
    config.data.num_classes = 21
    config.data.labeled_split = ""
    config.data.unlabeled_split = ""
    config.data.eval_split = "val"
    config.data.num_labeled = 0  # how many images labeled_split must name; 0 for any number
    config.data.diagnostic_labels = False  # read unlabelled masks, for metrics and pictures only
    config.data.crop_size = 512  # [P] VOC; 768 Cityscapes
    config.data.min_scale = 0.5  # [M] short edge, in crop sizes
    config.data.max_scale = 2.0  # [M]
    config.data.max_long_edge = 2048  # [M]
    # [M] test size (0: as it is); long edge at most max_long_edge. Near the crop's: a small network
    # from scratch, tested at 1.5 times its crop, lost 0.08 to 0.10 mIoU (docs/study.md).
    config.data.eval_short_edge = 512
    config.data.flip = True  # [M] horizontal, with probability 1/2
    config.data.color = True  # [M] SSD colour augmentation, on the device

    # Arguments of the drawn data set (data.name = "shapes"); others ignore them.
    config.data.shapes = ConfigDict()
    config.data.shapes.image_size = 64
    config.data.shapes.num_train = 1_000
    config.data.shapes.num_val = 200
    config.data.shapes.seed = 0

    # Evaluation. Scores are averaged over scales, mirrored views and windows.
    config.eval_batch_size = 8
    config.eval = ConfigDict()
    # [M] factors of data.eval_short_edge; on the command line --config.eval.scales=0.5,1.0,1.5
    config.eval.scales = (1.0,)
    config.eval.flip = False  # [M] also the mirrored image
    config.eval.window = 0  # [M] the whole image; else the side of square sliding windows
    config.eval.window_stride = 2 / 3  # of the window: mmsegmentation's configs, 513 of 769
    config.eval.max_shapes = 4  # images of mixed sizes are padded to so many shapes, at most
    config.num_pictures = 8  # rows of the figures written at each evaluation; 0 writes none
    return config
