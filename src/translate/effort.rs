//! How hard the model is asked to think.
//!
//! What counts, first to last: the configuration; the last `output_config.effort` of a message (it
//! holds from there on), then that of the request; `thinking`, in the words of older clients; what
//! the model does by default. The model takes what is nearest to that.

use crate::catalogue::model::Effort;
use crate::translate::loss::Loss;
use crate::translate::request::Target;
use crate::wire::messages::{Request, Thinking};

/// Up to how many tokens of `budget_tokens` mean which effort; more means `xhigh`. The client's
/// largest budget is 31,999.
const BUDGETS: &[(u64, Effort)] = &[
    (4_000, Effort::Low),
    (10_000, Effort::Medium),
    (31_999, Effort::High),
];

/// What goes into `reasoning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reasoning {
    /// The effort; none leaves it to upstream.
    pub(super) effort: Option<Effort>,
    /// Whether a summary is wanted, which the client shows as thinking.
    pub(super) summary: bool,
}

/// Decides about reasoning for `request`; adds what could not be told to `losses`.
pub(super) fn reasoning(
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Vec<Loss>,
) -> Reasoning {
    let effort = wanted(request, target, losses).map(|wanted| {
        let taken = target.model.clamp(wanted);
        if taken.wire_name() != wanted.wire_name() && wanted != Effort::None {
            losses.push(Loss::approximated("effort"));
        }
        taken
    });
    Reasoning {
        effort: effort.or(target.model.default_effort),
        summary: effort != Some(Effort::None) && shows_thinking(request.thinking.as_ref()),
    }
}

fn wanted(request: &Request<'_>, target: &Target<'_>, losses: &mut Vec<Loss>) -> Option<Effort> {
    if target.effort.is_some() {
        return target.effort;
    }
    let per_message = request
        .messages
        .iter()
        .rev()
        .filter_map(|message| message.effort.as_deref());
    for name in per_message.chain(request.output_config.effort.as_deref()) {
        match Effort::parse(name) {
            Some(effort) => return Some(effort),
            None => losses.push(Loss::dropped("effort")),
        }
    }
    let thinking = request.thinking.as_ref()?;
    match thinking.kind.as_ref() {
        // `none` where the model knows it, else its weakest.
        "disabled" if target.model.efforts.is_empty() => Some(Effort::Low),
        "disabled" => Some(Effort::None),
        "enabled" => thinking.budget_tokens.map(by_budget),
        _ => None,
    }
}

fn by_budget(budget_tokens: u64) -> Effort {
    BUDGETS
        .iter()
        .find(|(most, _)| budget_tokens <= *most)
        .map_or(Effort::Xhigh, |(_, effort)| *effort)
}

fn shows_thinking(thinking: Option<&Thinking<'_>>) -> bool {
    thinking.is_some_and(|thinking| {
        thinking.kind != "disabled" && thinking.display.as_deref() != Some("omitted")
    })
}
