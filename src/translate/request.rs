//! A Messages request becomes a Responses request.
//!
//! Written straight into one buffer, in the order of keys that upstream's own client has (contract
//! chatgpt-codex §3, §4). The same request and target give the same bytes.

use std::sync::Arc;

use crate::catalogue::knobs::Knobs;
use crate::catalogue::model::{Effort, Lane, Model};
use crate::translate::effort::{self, Reasoning};
use crate::translate::items::{Items, Place};
use crate::translate::names::ToolNames;
use crate::translate::papers::Papers;
use crate::translate::reasoning::Origin;
use crate::translate::search::Search;
use crate::translate::{format, media, writer};
use crate::wire::messages::{self, Role};

pub use crate::translate::loss::{Loss, Place as LossPlace};
pub use crate::translate::tools::ToolCache;

/// The edit of `context_management` that asks for nothing: all thinking is kept anyway.
const KEEP_THINKING: &str = "clear_thinking_20251015";

/// Where a request goes and what that place can take.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The catalogue entry of the upstream model.
    pub model: &'a Model,
    /// Which form of the request that model is served.
    pub lane: Lane,
    /// The account and model whose encrypted reasoning may be replayed.
    pub origin: &'a Origin,
    /// The conversation: becomes `prompt_cache_key`. Stable from turn to turn.
    pub conversation: &'a str,
    /// `service_tier` to ask for, already known to be offered by the model.
    pub tier: Option<&'a str>,
    /// Effort, verbosity and summary as the person has set them, which outranks what the request says.
    pub knobs: Knobs,
    /// What is known of the request's PDFs; those of [`wanted`](crate::translate::papers::wanted) have to be there.
    pub papers: &'a Papers<'a>,
}

/// A request in upstream's form.
#[derive(Debug)]
pub struct Translated {
    /// The JSON body. The same request and target give the same bytes.
    pub body: Vec<u8>,
    /// Tool names that had to be changed.
    pub names: ToolNames,
    /// What searches by upstream may do; none were asked for if `None`.
    pub search: Option<Arc<Search>>,
    /// What upstream could not be told, one entry for each kind and place.
    pub losses: Vec<Loss>,
    /// The effort that is asked for; `None` leaves it to upstream.
    pub effort: Option<&'static str>,
}

/// A request that cannot be translated: the client's fault, answered with 400.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No messages at all.
    #[error("messages: at least one message is required")]
    NoMessages,
    /// A part that is only read when it is needed (the tools) is not what it must be.
    #[error(transparent)]
    Parse(#[from] messages::ParseError),
    /// Something cannot be told in full, and the person wants none of that.
    #[error("{first}{}; refused, because ccx is set to `strict`", more_of(*more))]
    Lossy {
        /// The first of what would be lost.
        first: Loss,
        /// How much more there is.
        more: usize,
    },
}

fn more_of(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(", and {more} more"),
    }
}

impl Translated {
    /// Refuses what upstream would not be told in full.
    ///
    /// # Errors
    ///
    /// [`RequestError::Lossy`], if there is anything of it.
    pub fn strictly(self) -> Result<Self, RequestError> {
        match self.losses.first() {
            None => Ok(self),
            Some(&first) => Err(RequestError::Lossy {
                first,
                more: self.losses.len() - 1,
            }),
        }
    }
}

/// Translates `request` for `target`.
///
/// Fails on a request without messages and on tool definitions that cannot be read; everything else
/// that upstream cannot take is met in place and listed in [`Translated::losses`].
pub fn translate(
    request: &messages::Request<'_>,
    target: &Target<'_>,
    cache: &mut ToolCache,
) -> Result<Translated, RequestError> {
    let Some(last) = request.messages.last() else {
        return Err(RequestError::NoMessages);
    };
    let tools = cache.list(&request.tools, target.lane)?;
    let mut losses = tools.losses.clone();
    losses.extend(unsendable(request));
    if request.fast && target.tier.is_none() {
        losses.push(Loss::dropped("speed"));
    }
    if last.role == Role::Assistant {
        // The model sees the beginning of its answer, but may start anew.
        let at = request.messages.len() - 1;
        losses.push(Loss::approximated("prefill").at(LossPlace::Message { at, block: None }));
    }

    // Room for the request's own bytes and what surrounds them, so that it seldom has to grow.
    let mut body = Vec::with_capacity(request.size_bytes + request.size_bytes / 16 + 2_048);
    let out = &mut body;
    writer::json(out, r#"{"model":"#);
    writer::string(out, &target.model.slug);
    writer::json(out, r#","stream":true,"#);
    if let Some(tier) = target.tier {
        writer::json(out, r#""service_tier":"#);
        writer::string(out, tier);
        out.push(b',');
    }

    writer::json(out, r#""input":["#);
    let place = Place {
        lane: target.lane,
        origin: target.origin,
        images: target.model.images,
        tools: &tools,
        papers: target.papers,
    };
    let left_out = media::left_out(request.size_bytes, &request.messages, target.lane);
    let found = Items::new(out, place, &request.messages, left_out)
        .write(request.system.as_ref(), &request.messages);
    losses.extend(found.losses);
    writer::json(out, "],");

    let has_tools = !tools.shown.is_empty() || !found.loaded.is_empty();
    if has_tools && target.lane == Lane::Full {
        writer::json(out, r#""tools":["#);
        out.extend_from_slice(&tools.shown);
        let mut first = tools.shown.is_empty();
        for &at in &found.loaded {
            writer::comma(out, &mut first);
            out.extend_from_slice(&tools.deferred[at].definition);
        }
        writer::json(out, "],");
    }
    let choice = request.tool_choice.as_ref();
    if has_tools {
        writer::json(out, r#""tool_choice":"#);
        losses.extend(tools.choice(out, choice, &found.loaded));
        out.push(b',');
    }
    let is_parallel = target.lane == Lane::Full && !choice.is_some_and(|it| it.one_at_a_time);
    // The lite lane demands it, the full lane refuses it without tools (contract §3, §4).
    if has_tools || target.lane == Lane::Lite {
        writer::json(out, r#""parallel_tool_calls":"#);
        writer::json(out, if is_parallel { "true," } else { "false," });
    }

    if format::is_approximated(request.output_config.schema)? {
        losses.push(Loss::approximated("output_schema"));
    }
    let reasoning = effort::reasoning(request, target, &mut losses);
    write_reasoning(out, reasoning, target.lane);
    writer::json(
        out,
        r#""store":false,"include":["reasoning.encrypted_content"]"#,
    );
    if !target.conversation.is_empty() {
        writer::json(out, r#","prompt_cache_key":"#);
        writer::string(out, target.conversation);
    }
    let before = out.len();
    writer::json(out, r#","text":"#);
    if !format::text(
        out,
        target.model,
        target.knobs.verbosity.value(),
        request.output_config.schema,
    )? {
        out.truncate(before);
    }
    out.push(b'}');

    Ok(Translated {
        body,
        names: found.names,
        search: tools.search.clone(),
        losses,
        effort: reasoning.effort.map(Effort::wire_name),
    })
}

fn write_reasoning(out: &mut Vec<u8>, reasoning: Reasoning, lane: Lane) {
    let effort = reasoning
        .effort
        .map(|effort| ("effort", effort.wire_name()));
    let summary = reasoning.summary.map(|summary| ("summary", summary));
    let context = (lane == Lane::Lite).then_some(("context", "all_turns"));
    let mut first = true;
    for (name, value) in [effort, summary, context].into_iter().flatten() {
        if first {
            writer::json(out, r#""reasoning":{"#);
        }
        writer::comma(out, &mut first);
        writer::string(out, name);
        out.push(b':');
        writer::string(out, value);
    }
    if !first {
        writer::json(out, "},");
    }
}

/// Returns the losses of fields for which upstream has no place (contract chatgpt-codex §3). Stop sequences and a limit
/// of tokens are kept here instead: see [`crate::translate::cut`].
fn unsendable(request: &messages::Request<'_>) -> impl Iterator<Item = Loss> {
    [
        (request.temperature.is_some(), "temperature"),
        (request.top_p.is_some(), "top_p"),
        (request.top_k.is_some(), "top_k"),
        (
            request
                .context_edits
                .iter()
                .any(|kind| kind != KEEP_THINKING),
            "context_management",
        ),
        (request.safeguards, "safeguards"),
    ]
    .into_iter()
    .filter(|(is_lost, _)| *is_lost)
    .map(|(_, kind)| Loss::dropped(kind))
}
