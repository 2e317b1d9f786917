"""The functions that `import fullrank` offers and the command line calls."""

from fullrank.api.adaptation import adapt
from fullrank.api.cures import cure
from fullrank.api.encoders import (
    create_method,
    embed,
    export,
    list_methods,
    list_metrics,
    open_encoder,
)
from fullrank.api.judgement import audit, compare, evaluate, explain_loss, pick
from fullrank.api.training import resume, train, train_config

__all__ = [
    "adapt", "audit", "compare", "create_method", "cure", "embed", "evaluate", "explain_loss", "export",
    "list_methods", "list_metrics", "open_encoder", "pick", "resume", "train", "train_config",
]  # fmt: skip
