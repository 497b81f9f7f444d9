//! How hard the model is asked to think.
//!
//! What counts, first to last: the configuration, and the name of the model; the last
//! `output_config.effort` of a message (it holds from there on), then that of the request;
//! `thinking`, in the words of older clients; what the model does by default. The configuration sets
//! bounds to that, and the model takes what is nearest.

use crate::catalogue::knobs::Summary;
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
    /// The summary that is wanted, which the client shows as thinking.
    pub(super) summary: Option<&'static str>,
}

/// Decides about reasoning for `request`; adds what could not be told to `losses`.
pub(super) fn reasoning(
    request: &Request<'_>,
    target: &Target<'_>,
    losses: &mut Vec<Loss>,
) -> Reasoning {
    let asked = asked(request, losses);
    let thinking = request.thinking.as_ref();
    let knobs = target.knobs;
    let mut taken = |wanted: Effort| {
        let taken = target.model.clamp(wanted);
        if taken.wire_name() != wanted.wire_name() && wanted != Effort::None {
            losses.push(Loss::approximated("effort"));
        }
        taken
    };
    let effort = if thinking.is_some_and(is_disabled) {
        // `none` where the model knows it, else its weakest.
        let least = match target.model.efforts.is_empty() {
            true => Effort::Low,
            false => Effort::None,
        };
        Some(taken(knobs.effort.value().or(asked).unwrap_or(least)))
    } else {
        let budget = || thinking.and_then(by_budget);
        let wanted = knobs.effort.value().or(asked).or_else(budget);
        match (wanted, target.model.default_effort) {
            (Some(wanted), _) => Some(taken(knobs.bounded(wanted))),
            (None, Some(default)) if knobs.bounded(default) != default => {
                Some(taken(knobs.bounded(default)))
            }
            (None, default) => default,
        }
    };
    let summary = match target.knobs.summary.value() {
        _ if effort == Some(Effort::None) || thinking.is_none_or(is_disabled) => None,
        None => (!thinking.is_some_and(is_omitted)).then_some("auto"),
        Some(Summary::Shown) => Some("auto"),
        Some(Summary::Detailed) => Some("detailed"),
        Some(Summary::Hidden) => None,
    };
    Reasoning { effort, summary }
}

/// What the request says by name.
fn asked(request: &Request<'_>, losses: &mut Vec<Loss>) -> Option<Effort> {
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
    None
}

/// What it says in the words of older clients.
fn by_budget(thinking: &Thinking<'_>) -> Option<Effort> {
    let budget_tokens = thinking
        .budget_tokens
        .filter(|_| thinking.kind == "enabled")?;
    let found = BUDGETS.iter().find(|(most, _)| budget_tokens <= *most);
    Some(found.map_or(Effort::Xhigh, |(_, effort)| *effort))
}

fn is_disabled(thinking: &Thinking<'_>) -> bool {
    thinking.kind == "disabled"
}

fn is_omitted(thinking: &Thinking<'_>) -> bool {
    thinking.display.as_deref() == Some("omitted")
}
