"""AdamW with MaskFormer's parameter groups and the paper's poly schedule."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

# Parts of regular expressions for paths of parameters: those of a backbone that do not decay, and
# the other modules that have norms.
_UNDECAYED = "norm|_token|position_|layer_scale"
_HEAD = "pyramid|pixel_decoder|transformer"


class Rule(NamedTuple):
    """A parameter group: parameters whose path matches `pattern` share learning rate and decay."""

    pattern: str
    learning_rate_multiplier: float
    weight_decay: float


def parameter_rules(config: ConfigDict) -> dict[str, Rule]:
    """MaskFormer's groups: the backbone learns slower; norms and embeddings do not decay.

    Nor do tokens, position codes and scales of a transformer as the backbone. Every parameter of
    `MaskFormer` matches exactly one pattern; `group_of` raises otherwise.
    """
    slow, decay = config.backbone_lr_multiplier, config.weight_decay
    return {
        "backbone": Rule(rf"backbone/(?!.*({_UNDECAYED})).*", slow, decay),
        "backbone_norm": Rule(rf"backbone/.*({_UNDECAYED}).*", slow, 0.0),
        "head": Rule(rf"({_HEAD}|class_head|mask_head)\b(?!.*norm).*", 1.0, decay),
        "head_norm": Rule(rf"({_HEAD})/.*norm.*", 1.0, 0.0),
        "embedding": Rule(r"query_embed\b.*", 1.0, 0.0),
    }


def group_of(path: str, rules: dict[str, Rule]) -> str:
    """Name of the one rule that a parameter's path matches.

    Args:
      path: such as "backbone/stem_norm1/scale".
      rules: the parameter groups by name, from `parameter_rules`.

    Raises:
      ValueError: if no rule or more than one matches.
    """
    names = [name for name, rule in rules.items() if re.fullmatch(rule.pattern, path)]
    if len(names) != 1:
        raise ValueError(
            f"parameter {path!r} falls under {len(names)} optimiser rules {names}; every parameter "
            "must fall under exactly one: mend `parameter_rules` in rc2l_jax/method/optimizer.py"
        )
    return names[0]


def parameter_groups(params: Any, rules: dict[str, Rule]) -> Any:
    """The tree of `params` with each leaf replaced by its rule's name."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: group_of("/".join(key.key for key in path), rules), params
    )


def learning_rate_schedule(config: ConfigDict) -> optax.Schedule:
    """The paper's poly policy, rate * (1 - step / num_steps) ** power, times a linear warm-up."""
    poly = optax.polynomial_schedule(
        init_value=config.learning_rate,
        end_value=0.0,
        power=config.poly_power,
        transition_steps=config.num_steps,
    )
    if not config.warmup_steps:
        return poly
    return lambda step: poly(step) * jax.numpy.minimum(1.0, (step + 1) / config.warmup_steps)


def applied_steps(opt_state: Any) -> jax.Array:
    """Number of updates applied so far, by which the schedule goes; non-finite steps apply none."""
    return opt_state[-1].count


def global_norm(tree: Any) -> jax.Array:
    """Euclidean norm of all leaves together, float32 [].

    Except on TPUs, where that would rearrange them in memory, the leaves are joined into one vector
    first. `optax.global_norm` sums each of some hundred leaves on its own; with it the norms were a
    tenth of what a training step has to compile.
    """

    def joined(*leaves: jax.Array) -> jax.Array:
        vectors = [jnp.ravel(x).astype(jnp.float32) for x in leaves]
        return jnp.sqrt(jnp.square(jnp.concatenate(vectors)).sum())

    leaves = jax.tree.leaves(tree)
    return jax.lax.platform_dependent(
        *leaves, tpu=lambda *leaves: optax.global_norm(leaves), default=joined
    )


def clip_by_norm(largest: float) -> optax.GradientTransformationExtraArgs:
    """`optax.clip_by_global_norm` that takes a norm already computed: `update(..., norm=...)`.

    Without that argument it computes the norm itself.
    """

    def update(grads: Any, state: Any, params: Any = None, **given: jax.Array) -> tuple[Any, Any]:
        del params
        total = given["norm"] if "norm" in given else global_norm(grads)
        factor = jnp.where(total < largest, 1.0, largest / total)  # as torch's, one for all leaves
        return jax.tree.map(lambda x: x * factor.astype(x.dtype), grads), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def create_optimizer(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """AdamW as in torch, after clipping by global norm; each group has its decay and rate."""
    rules = parameter_rules(config)
    by_group = optax.multi_transform(
        {
            name: optax.chain(
                optax.add_decayed_weights(rule.weight_decay),
                optax.scale(rule.learning_rate_multiplier),
            )
            for name, rule in rules.items()
        },
        lambda params: parameter_groups(params, rules),
    )
    return optax.chain(
        clip_by_norm(config.grad_clip_norm),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, mu_dtype=config.optimizer_dtype),
        by_group,
        optax.scale_by_learning_rate(learning_rate_schedule(config)),
    )
