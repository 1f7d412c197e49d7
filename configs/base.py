"""Every default of rc2l_jax, once, with its source. Experiments override a few of them.

Sources: [P] the RC²L paper (section 4.1 unless said); [M] MaskFormer (arXiv 2107.06278) and the
semantic ResNet configs of its code; [D] a decision of ours, where the paper is silent or unclear.
Scores below are the teacher's mIoU on CamVid with 1/8 of the labels. Unless "from scratch" is said,
they are of 1,500 steps that go on from a supervised teacher (docs/study_from_scratch.md, "Terms,
weights and readings").
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The paper's VOC Train protocol on MaskFormer's ResNet-101."""
    config = ConfigDict()
    config.seed = 0

    # Schedule. All durations are in steps.
    config.num_steps = 120_000  # [P] VOC Train; VOC Aug 160k, Cityscapes 120k
    # [P] "we set the batch size to 16"; [D] that this is the number of labelled and also that of
    # unlabelled images. Both are over all devices.
    config.batch_size = 16
    config.unlabeled_batch_size = 16
    config.log_every_steps = 100
    config.eval_every_steps = 5_000
    config.checkpoint_every_steps = 1_000
    config.keep_checkpoints = 2  # how many of the newest to keep, besides the best one
    # The run ends after this many steps in a row whose loss or gradients are not finite. Such steps
    # change nothing.
    config.max_nonfinite_steps = 100
    # Pretrained weights: a folder, a file, a name on the Hugging Face hub, or a run directory, of
    # which the newest teacher is taken; "" for none.
    config.init_from = ""
    config.init_queries = "first"  # queries: the first of the pretrained ones; or "fresh": random
    config.matcher = "host"  # "host": scipy in a callback; "device": optax
    config.dtype = "float32"  # of activations, or "bfloat16"; parameters, losses stay float32
    # [D] With how many bits accelerators multiply float32 matrices inside of the network.
    # "default": TF32 on GPUs since Ampere, one bfloat16 pass on TPUs; "high": TF32, three passes;
    # "highest": float32. Whatever it is, class and mask logits and all that is matched, thresholded
    # or contrasted are computed in float32.
    config.matmul_precision = "default"
    # Each device processes its share of a batch in this many parts, to save memory. The same parts
    # of all devices together are a batch of their own: losses are divided by its counts, so that a
    # part with one pseudo segment weighs as much as a part with thirty, and CutMix mixes images
    # within a part only.
    config.accumulate_steps = 1
    config.remat = False  # True: less memory, more time; see benchmarks/RESULTS.md
    config.optimizer_dtype = "float32"  # of Adam's first moment, or "bfloat16"
    # Folder where programs compiled for accelerators are kept from run to run ("" for none).
    # JAX_COMPILATION_CACHE_DIR, if set, wins. See `rc2l_jax.run.startup` for what is kept.
    config.compilation_cache = "~/.cache/rc2l_jax/xla"
    config.profile = False  # True: write a trace of a few steps to the run directory
    # What to do with a training image that broke after it was prepared (a bad disk, a copy cut
    # short). "error" ends the run. "skip" names and counts the image and takes another, for long
    # runs that a few images should not end.
    config.on_bad_example = "error"
    # With "skip", the run still ends once a process has met more different broken images than this:
    # then the data set itself is broken. The same number limits how many unlabelled images are left
    # out that were damaged already when records were made, whatever `on_bad_example` says.
    config.max_bad_examples = 100

    # Optimiser.
    config.learning_rate = 1e-4  # [P]
    config.weight_decay = 1e-4  # [P]; none on norms and embeddings [M]
    config.backbone_lr_multiplier = 0.1  # [M]
    config.poly_power = 0.9  # [P]
    config.warmup_steps = 0  # [M] (semantic ResNet configs)
    config.grad_clip_norm = 0.01  # [M] global norm

    # Eq. 3 and 4.
    # alpha; 0 for supervised training. [P] 2 on VOC Train 1/2, 1 on VOC Aug 1/4 (Table 4); [D] the
    # same on the other partitions.
    config.unsup_weight = 2.0
    # [D] Burn-in: alpha is 0 before this step. After 6,000 steps from scratch: 0.483 without, 0.474
    # with 1,000 and 0.453 with 2,500 steps of burn-in.
    config.unsup_start_step = 0
    config.unsup_ramp_steps = 0  # [D] length of a linear ramp of alpha after the burn-in
    # [D] tau of Eq. 4, with a warm-up: min(tau, 1 - 1 / (step + 1)). Runs that go on from a trained
    # teacher: 0.466 and 0.473 (two orders of the images) with 0.99, 0.467 with 0.999. From another
    # teacher: 0.442 with 0.99, 0.439 with 0.95.
    config.ema_decay = 0.99

    # Segments and matching.
    config.max_segments = 32  # [D] slots M of an image; the largest segments get one
    # [D] False compares masks on void pixels, too, as [M] does: void is then outside of every
    # segment. Padding, which [M] compares as well, is never compared here.
    config.ignore_void = True
    # Cost weights [M]. [D] The same on unlabelled images, whose pseudo segments have classes as
    # well; the paper names only the masks there. [D] Masks are compared on the grid of the mask
    # logits (stride 4), as in [M], and the losses of Eq. 2 as well.
    config.match = ConfigDict()
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

    # From the teacher's predictions to pseudo segments. No reading stands out
    # (docs/study_from_scratch.md, "Terms, weights and readings"): 0.466 and 0.473 (two orders of
    # the images) with "semantic", pixel_threshold 0 and alignment 0.5; one change from there gives
    # 0.475 (threshold 0.5), 0.469 (no alignment) and 0.470 ("query").
    config.pseudo = ConfigDict()
    config.pseudo.source = "query"  # [D] a segment for each winning query; "semantic": each class
    config.pseudo.score_threshold = 0.7  # [D] "query": of a query's class probability
    config.pseudo.mask_threshold = 0.5  # [D] "query": of a pixel's mask probability
    config.pseudo.pixel_threshold = 0.7  # [D] "semantic": of a pixel's class score
    # [D] True: each class has its own threshold, `pixel_threshold` times the mean score of its
    # pixels (`rc2l_jax.method.class_thresholds`). On 84 photos of VOC's classes, one
    # training each, 0.339, and with one threshold 0.304 (docs/study_photos.md).
    config.pseudo.threshold_by_class = False
    # [D] Strength of `rc2l_jax.method.class_alignment`: 0 for none; 1 for the whole correction,
    # towards classes that are as frequent as in the labels.
    config.pseudo.class_alignment = 0.0
    # [D] True: a pseudo segment is kept only if it looks like the labelled segments of its class
    # (`rc2l_jax.method.class_prototypes`). For pretrained backbones: on 84 photos of VOC's classes
    # 0.327, and 0.309 without it (docs/study.md).
    config.pseudo.prototype_check = False
    config.pseudo.min_area = 4  # [D] smallest segment, in pixels of the mask grid
    # [D] Pixels that no segment covers. "unknown": no mask is compared there. "negative": they are
    # outside of every segment, as the masks {0, 1} of Eqs. 5 to 10 say if taken literally.
    # "unknown" and "negative" give 0.407 and 0.444 in one order of the images and 0.426 and 0.445
    # in another (pixel_threshold 0.9, which covers 0.64 of the pixels), and 0.448 and 0.454 with
    # "query", which covers 0.90. From scratch (threshold 0.9) they give 0.408 and 0.392, and with
    # "negative" the teacher covers less and less. On 84 photos of VOC's classes 0.339 and 0.283;
    # in the method as printed, with "query", 0.190 and 0.252 (docs/study.md).
    config.pseudo.uncovered = "unknown"
    # [D] One segment for each class, as in the ground truth. With "query": 0.448, and 0.424 if
    # segments are not merged.
    config.pseudo.merge_same_class = True

    # Weak view x^w. [P] "short edge resize, random crop, random flip, and color augmentation".
    config.weak_color = True  # False: the teacher sees the image's own colours
    # Strong view x^s. [P] "all weak data augmentation methods and CutMix". Its geometry is that of
    # the weak view, so that the masks fit.
    # [D] "same": the colours of the weak view; "weak": drawn anew in the same way; "jitter".
    config.strong_color = "same"
    config.jitter = ConfigDict()  # for "jitter"; numbers of UniMatch's strong views
    config.jitter.probability = 0.8
    config.jitter.brightness = 0.5
    config.jitter.contrast = 0.5
    config.jitter.saturation = 0.5
    config.jitter.hue = 0.25  # of the circle
    config.jitter.grayscale = 0.2  # probability
    # CutMix: one box for each image. Areas are shares of the image's.
    config.cutmix = ConfigDict()
    config.cutmix.probability = 1.0  # [D] that an image has a box
    config.cutmix.min_area = 0.25  # [D]
    config.cutmix.max_area = 0.5  # [D]
    config.cutmix.max_aspect = 2.0  # [D] largest ratio of the sides

    # Weights of Eq. 2 and the region losses.
    config.unsup = ConfigDict()
    config.unsup.rcc_weight = 1.0  # [P] beta_1
    config.unsup.smc_weight = 20.0  # [P] beta_2
    config.unsup.rmc_weight = 4.0  # [P] beta_3
    config.unsup.rfc_weight = 4.0  # [P] beta_4
    config.unsup.consistency_weight = 0.0  # [D] beta_0, the baseline of Table 3 row 1
    # [D] tau_m of Eq. 5. [D] d is the Dice coefficient of a soft and a hard mask, 2 |a n b| over
    # |a| + |b|, where the equation has a union sign.
    config.unsup.rmc_temperature = 0.5
    config.unsup.rfc_temperature = 0.5  # [D] tau_f of Eq. 8
    # No single change here makes a difference beyond chance: 0.472 with denominator "paper", 0.469
    # with union "semantic", 0.478 with both temperatures 0.1, beside 0.466 and 0.473 with these
    # values; from another teacher 0.439 with union "max", 0.442 with both temperatures 1, beside
    # 0.442.
    # [D] "paper" is the denominator of Eqs. 5 and 8 as printed. With it the losses may fall to
    # -1 / tau_m and -2 / tau_f, and their gradients do not fade.
    config.unsup.contrast_denominator = "with_positive"
    # [D] What a sum over an image's pseudo segments (Eqs. 5, 8, 9 and 10) is divided by.
    # "segments": the number of all pseudo segments of the batch, as [M] divides Eq. 1, which is
    # printed as a sum, too (SMC: of classes; RCC: the sum of its queries' weights). "images": the
    # number of images, as printed, so that images with many segments count more.
    config.unsup.normalizer = "segments"
    config.unsup.union = "normalized"  # [D] Union of Eq. 10; or "semantic", "max"
    # Weights inside L_mask of SMC and of the consistency baseline. [D] With them beta_2 L_mask is
    # 20 focal + 1 dice, as in MaskFormer. Read literally, L_mask itself is 20 focal + 1 dice, and
    # beta_2 multiplies that: the weights would be 20 and 1. Those score 0.066 less than the
    # supervised run, these 0.002 more.
    config.unsup.focal_weight = 1.0
    config.unsup.dice_weight = 0.05
    # [D] Unmatched queries learn no-object, as in Eq. 1. With 84 photos of VOC's classes 0.309, and
    # 0.302 without; in the frequent classes 0.449 and 0.425 (docs/study.md).
    config.unsup.rcc_no_object = True
    config.unsup.deep_supervision = False  # [D] True: these losses act on every decoder layer

    # Model. All of [M] unless said.
    config.model = ConfigDict()
    config.model.backbone = "resnet101"  # [P]; resnet10, 18, 34, 50, 101, 152
    # or efficientnet_lite0, 1, 2; or dinov2_small, _base, _large, and each with _registers; or
    # swin_tiny, _small, _base, _large, which [M] trains with learning_rate = 6e-5, weight_decay =
    # 0.01 and backbone_lr_multiplier = 1 (docs/weights.md).
    # The next three are of ResNets only.
    config.model.backbone_width = 64  # channels of the first stage
    config.model.stem = "basic"  # "deeplab": three 3x3 convolutions and a dilated res5 (R101c)
    config.model.norm = "frozen"  # "batch": over all devices; "group": to train from scratch
    # [D] EfficientNets only. True: their last feature map is the one that their classifier of
    # ImageNet sees. It learns faster, and after 2,000 steps is no better (docs/study_photos.md).
    config.model.backbone_head = False
    # True: the backbone stays as it was loaded. It takes no gradient and no optimiser state, and
    # the teacher has the same.
    config.model.freeze_backbone = False
    config.model.num_queries = 50  # [P] Table 5 (VOC); [D] also in the supervised baseline
    config.model.pixel_dim = 256  # channels of the pixel decoder
    config.model.mask_dim = 256  # C
    config.model.hidden_dim = 256  # width of the transformer decoder
    config.model.num_heads = 8
    config.model.ffn_dim = 2048
    config.model.num_decoder_layers = 6  # L
    config.model.dropout = 0.1

    # Data.
    config.data = ConfigDict()
    # "voc_semseg", "cityscapes_semseg", "camvid", "folder" (your own), "shapes" (drawn).
    config.data.name = ""
    config.data.dir = ""  # where the files lie; "" to use prepared records, or to download
    config.data.unlabeled_dir = ""  # a folder of images, which become the split "unlabeled"
    config.data.prepared_dir = "~/tensorflow_datasets"  # where prepared records are kept
    # [D] Photos whose short edge is longer are shrunk to this one when records are made, with their
    # masks, which are then scored at that size. Smaller photos stay as they are, and with 0 all do:
    # nothing of a mask is lost unasked. From 1,024 on it saves most of a large photo's decoding
    # (docs/own_images.md), but it should be no less than crop_size * max_scale.
    config.data.prepared_short_edge = 0
    config.data.num_classes = 21  # 0: as many as the data set has
    # Classes that become one: "top=shirt,blouse;bottom=trousers,skirt". "__ignore__=..." is void.
    config.data.merge_classes = ""
    config.data.labeled_split = ""
    config.data.unlabeled_split = ""
    config.data.eval_split = "val"
    # [D] Labelled images of rare classes are drawn more often: max(1, sqrt(t / f)) times as often,
    # f being the share of labelled images that show the image's rarest class; 0 draws all alike.
    config.data.class_sampling = 0.0
    config.data.num_labeled = 0  # how many images labeled_split must name; 0 for any number
    config.data.diagnostic_labels = False  # read unlabelled masks, for metrics and pictures only
    config.data.crop_size = 512  # [P] VOC; 768 Cityscapes
    config.data.min_scale = 0.5  # [M] smallest short edge in training, in units of crop_size
    # [M] Largest short edge, likewise. Short edges go up from the smallest in steps of 0.1.
    config.data.max_scale = 2.0
    config.data.max_long_edge = 2048  # [M] of resized images, also in evaluation
    # [M] Short edge in evaluation; 0 keeps the images' size. It should be near crop_size: a small
    # network from scratch, tested at 1.5 times its crop, lost 0.08 to 0.10 mIoU.
    config.data.eval_short_edge = 512
    config.data.flip = True  # [M] horizontal, with probability 1/2
    config.data.color = True  # [M] SSD colour augmentation, on the device

    # Arguments of the drawn data set (data.name = "shapes"); other data sets ignore them.
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
    config.eval.flip = False  # [M] True: predict the mirrored image as well
    config.eval.window = 0  # [M] side of square sliding windows; 0 for the whole image at once
    config.eval.window_stride = 2 / 3  # share of the window; mmsegmentation has 513 of 769
    config.eval.max_shapes = 4  # most shapes that images of mixed sizes are padded to
    config.num_pictures = 8  # rows of the figures written at each evaluation; 0 writes none
    return config
