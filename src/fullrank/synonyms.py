"""Other names of options, methods, metrics and commands.

The names are those of PyTorch, Lightning, the Hugging Face Trainer, timm, lightly, solo-learn and the papers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    # options of training
    "lr": ("learning_rate", "learningrate", "base_lr", "blr", "initial_lr", "max_lr", "eta", "step_size"),
    "batch_size": (
        "bs", "batchsize", "batch", "train_batch_size", "per_device_train_batch_size",
        "per_gpu_batch_size",
    ),
    "epochs": (
        "max_epochs", "num_epochs", "n_epochs", "num_train_epochs", "train_epochs", "nb_epochs",
        "epoch",
    ),
    "weight_decay": ("wd", "l2", "weightdecay", "decay"),
    "final_weight_decay": ("weight_decay_end", "wd_end"),
    "accumulate": (
        "accumulate_grad_batches", "gradient_accumulation_steps", "grad_accum", "accum_iter",
        "accumulation_steps",
    ),
    "clip_grad": ("gradient_clip_val", "max_grad_norm", "grad_clip", "clip_grad_norm", "clip_norm"),
    "optimizer": ("optim", "optimiser", "opt"),
    "schedule": ("scheduler", "lr_scheduler", "lr_scheduler_type", "lr_schedule", "sched"),
    "warmup_epochs": ("warmup", "warm_up", "num_warmup_epochs", "warmup_ratio", "warmup_steps"),
    "warmup_lr": ("warmup_start_lr",),
    "final_lr": ("min_lr", "lr_min", "eta_min", "end_lr"),
    "milestones": ("lr_steps", "lr_decay_steps"),
    "layer_decay": ("llrd", "layerwise_lr_decay", "lr_layer_decay"),
    "lars_eta": ("trust_coefficient", "trust_coef", "eta_lars"),
    "exclude_1d_decay": ("exclude_bias_n_norm", "no_bias_decay", "filter_bias_and_bn"),
    "precision": ("amp", "fp16", "bf16", "mixed_precision", "dtype", "half"),
    "compile": ("torch_compile",),
    "checkpoint_activations": ("gradient_checkpointing", "grad_checkpointing", "activation_checkpointing"),
    "sync_bn": ("sync_batchnorm", "syncbn"),
    # images, networks and machines
    "data": (
        "dataset", "dataset_name", "data_dir", "data_path", "train_data", "data_root", "images_dir",
        "folder",
    ),
    "image_size": ("img_size", "input_size", "crop_size", "resolution", "imgsz", "image_resolution"),
    "views": ("augmentation", "augmentations", "transform", "transforms", "aug", "augment"),
    "backbone": ("arch", "architecture", "model", "encoder", "network", "net", "model_name"),
    "init": ("pretrained", "weights", "checkpoint", "ckpt", "ckpt_path", "load_from", "pretrained_weights"),
    "freeze": ("frozen", "freeze_layers", "frozen_stages"),
    "lora": ("lora_rank", "lora_r"),
    "limit": ("subset", "num_samples", "max_samples", "max_images", "num_images"),
    "devices": ("gpus", "gpu", "num_gpus", "n_gpus", "ngpu", "num_devices", "nproc_per_node", "world_size"),
    "num_nodes": ("nodes", "nnodes"),
    "workers": ("num_workers", "n_workers", "dataloader_num_workers", "n_jobs"),
    "device": ("accelerator", "cuda"),
    "accelerator": ("device", "cuda"),
    "seed": ("random_seed", "random_state", "manual_seed", "rng"),
    # watching and results
    "out": (
        "output", "output_dir", "out_dir", "save_dir", "log_dir", "run_dir", "default_root_dir",
        "checkpoint_dir",
    ),
    "log": ("logger", "loggers", "report_to", "tracker", "log_with"),
    "watch_every": ("eval_every", "check_val_every_n_epoch", "eval_freq", "log_every", "val_every"),
    "keep_every": ("save_every", "save_freq", "save_interval", "save_every_n_epochs"),
    "keep_checkpoints": ("save_top_k", "save_total_limit", "max_to_keep"),
    "checkpoint_every": ("save_steps", "every_n_train_steps"),
    "early_stop": ("early_stopping", "early_stopping_patience"),
    "on_collapse": ("collapse", "stop_on_collapse"),
    "on_nan": ("detect_nan", "terminate_on_nan", "nan"),
    "knn_k": ("k", "num_neighbors", "n_neighbors", "neighbours"),
    "k": ("knn_k", "num_neighbors", "n_neighbors", "neighbours"),
    "ks": ("k", "knn_k", "num_neighbors", "n_neighbors", "neighbours"),
    "knn_every": ("knn", "knn_freq"),
    "probe": ("online_probe", "linear_probe", "online_linear"),
    "resume": ("auto_resume", "continue", "resume_from_checkpoint", "continue_training"),
    "live": ("watch", "dashboard", "serve"),
    "figures": ("plots", "plot"),
    "taps": ("layer", "tap", "layer_names"),
    "quiet": ("silent", "no_progress"),
    # options of methods
    "tau_base": (
        "tau", "ema", "ema_decay", "ema_momentum", "momentum_teacher", "base_momentum", "m", "base_tau",
        "target_momentum", "teacher_momentum", "base_tau_momentum", "momentum_encoder",
    ),
    "target_momentum": ("tau", "tau_base", "ema", "ema_decay", "ema_momentum"),
    "tau_final": ("final_tau", "final_tau_momentum", "ema_end"),
    "temperature": ("temp", "t", "tau", "softmax_temperature", "tau_temperature"),
    "student_temperature": ("temperature", "temp", "student_temp", "tau_student"),
    "teacher_temperature": ("teacher_temp", "tau_teacher"),
    "warmup_teacher_temperature": ("warmup_teacher_temp",),
    "warmup_teacher_temperature_epochs": ("warmup_teacher_temp_epochs",),
    "centre_momentum": ("center_momentum",),
    "proj_hidden_dim": ("hidden_dim", "projection_hidden_dim", "mlp_dim", "projector_hidden_dim"),
    "proj_output_dim": (
        "output_dim", "projection_dim", "proj_dim", "out_dim", "projector_dim", "embedding_dim",
    ),
    "pred_hidden_dim": ("predictor_hidden_dim", "prediction_hidden_dim", "pred_dim"),
    "num_prototypes": ("prototypes", "n_prototypes", "nmb_prototypes", "num_codes", "k"),
    "num_codes": ("codes", "n_codes", "num_prototypes", "num_clusters"),
    "queue_size": ("queue", "queue_length", "memory_bank_size"),
    "lamb": ("lambda", "lambda_", "lambd", "lambda_param", "lmbda", "lambda_coeff"),
    "sim_weight": ("sim_loss_weight", "sim_coeff", "invariance_weight", "lambda_param"),
    "var_weight": ("var_loss_weight", "std_coeff", "variance_weight", "mu_param"),
    "cov_weight": ("cov_loss_weight", "cov_coeff", "covariance_weight", "nu_param"),
    "stop_gradient": ("stop_grad", "stopgrad", "detach"),
    "sk_epsilon": ("epsilon", "sinkhorn_epsilon"),
    "sk_iters": ("sinkhorn_iterations", "sinkhorn_iters"),
    "norm_last_layer": ("normalise_last_layer", "normalize_last_layer"),
    "standardise": ("standardize",),
    "normalise": ("normalize",),
    # metrics
    "rankme_unit": ("rankme", "rankmee", "rank_me"),
    "erank_centred": (
        "effective_rank", "erank", "rank", "eff_rank", "erank_centered", "effective_dimension",
    ),
    "level": ("std", "normalized_std", "normalised_std", "collapse_level", "embedding_std", "repr_std"),
    "alpha_req": ("alphareq", "alpha", "power_law", "eigenspectrum_decay"),
    "mean_cosine": ("cosine", "cosine_similarity", "anisotropy", "avg_cosine", "cos_sim"),
    "participation_ratio": ("pr", "participation"),
    "two_nn": ("twonn", "intrinsic_dimension", "id", "intrinsic_dim"),
    "nesum": ("ne_sum",),
    "stable_rank": ("srank",),
    "nc1_variability": ("nc1", "neural_collapse"),
    "cdnv": ("class_distance_normalized_variance",),
    "code_perplexity": ("perplexity", "codebook_usage"),
    "isoscore": ("iso_score", "isotropy"),
    # methods and data
    "mocov3": ("moco", "moco_v3", "moco_v2", "mocov2"),
    "barlow_twins": ("barlow", "barlowtwins", "bt"),
    "wmse": ("w_mse", "whitening"),
    "teacher_student": ("mean_teacher", "self_distillation"),
    "lejepa": ("jepa", "ijepa", "i_jepa"),
    "cifar10": ("cifar", "cifar_10"),
    "cifar100": ("cifar_100",),
    "stl10": ("stl", "stl_10"),
    "imagenet": ("imagenet1k", "imagenet_1k", "ilsvrc2012"),
    # commands
    "train": ("fit", "pretrain", "run", "training"),
    "evaluate": ("eval", "test", "linear_eval", "benchmark"),
    "embed": ("extract", "features", "encode", "inference", "predict"),
    "audit": ("check", "diagnose", "analyze", "analyse", "judge", "inspect"),
    "watch": ("serve", "view", "dashboard", "live", "monitor", "tail"),
    "list": ("ls", "show", "methods"),
    "pick": ("select", "best", "choose", "rank"),
    "adapt": ("finetune", "fine_tune", "continue_pretraining"),
    "compare": ("diff",),
    "cure": ("fix", "heal", "treat"),
}  # fmt: skip
"""Real names, with what else they are called; where two real ones fit, the earlier one is offered."""


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that is meant by another one; empty where nobody can tell.

    Known names may begin with `options.`, as a method's own do.

    Example:
        >>> meant("learning-rate", ["lr", "epochs"]), meant("tau", ["lr", "options.tau_base"])
        ('lr', 'options.tau_base')
        >>> meant("options.temp", ["options.student_temperature"]), meant("lrr", ["lr"])
        ('options.student_temperature', '')
    """
    plain = {_plain(one): one for one in reversed(list(known))}
    word = _plain(name)
    if word in plain:  # the name itself, elsewhere or spelt otherwise
        return plain[word]
    return next((plain[real] for real, others in OTHER_NAMES.items() if word in others and real in plain), "")


def _plain(name: str) -> str:
    bare = name.strip().lower().lstrip("-").removeprefix("no-").removeprefix("options.")
    return bare.replace("-", "_").replace(" ", "_")
