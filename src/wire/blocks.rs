//! Content blocks of the Messages API, as they stand in a request.
//!
//! Unknown kinds of blocks and unknown fields are tolerated ([`Block::Other`]); a known field of a
//! known block that holds another type than it must is an error that says where. What the blocks
//! become upstream is decided elsewhere.

use std::borrow::Cow;

use crate::wire::json::{Kind, ParseError, Raw, Reader, Text};

/// What a message, a system prompt or a tool result says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content<'a> {
    /// A plain string; means the same as one text block.
    Text(Text<'a>),
    /// Blocks, in order.
    Blocks(Vec<Block<'a>>),
}

/// One content block.
#[derive(Clone, Debug, PartialEq)]
pub enum Block<'a> {
    /// `text`.
    Text(Text<'a>),
    /// `image`.
    Image(Source<'a>),
    /// `document`.
    Document(Document<'a>),
    /// `tool_use`.
    ToolUse(ToolUse<'a>),
    /// `tool_result`.
    ToolResult(ToolResult<'a>),
    /// `tool_reference`: the name of a deferred tool that is loaded from here on.
    ToolReference(Text<'a>),
    /// `thinking`.
    Thinking {
        /// The text shown; may be empty.
        thinking: Text<'a>,
        /// Whatever the answering side put there; empty if absent.
        signature: Text<'a>,
    },
    /// `redacted_thinking`, with its data.
    RedactedThinking(Text<'a>),
    /// `server_tool_use`: a call that the answering side ran itself.
    ServerToolUse(ToolUse<'a>),
    /// `web_search_tool_result`, with its content as it was written.
    WebSearchResult(Raw<'a>),
    /// Any other kind, by name.
    Other(Cow<'a, str>),
}

/// Where the bytes of an image or document are.
#[derive(Clone, Debug, PartialEq)]
pub enum Source<'a> {
    /// In the request, in base64.
    Base64 {
        /// The declared media type.
        media_type: Text<'a>,
        /// The base64 text.
        data: Text<'a>,
    },
    /// At an address.
    Url(Text<'a>),
    /// In the request, as text.
    Text(Text<'a>),
    /// In the request, as blocks.
    Content(Content<'a>),
    /// Somewhere else (for instance an uploaded file), by kind.
    Other(Cow<'a, str>),
}

/// A `document` block.
#[derive(Clone, Debug, PartialEq)]
pub struct Document<'a> {
    /// Where its bytes are.
    pub source: Source<'a>,
    /// Its title.
    pub title: Option<Text<'a>>,
    /// What the sender says about it.
    pub context: Option<Text<'a>>,
}

/// A `tool_use` or `server_tool_use` block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ToolUse<'a> {
    /// Identity of the call.
    pub id: Text<'a>,
    /// Name of the tool.
    pub name: Text<'a>,
    /// Arguments as they were written; absent means none.
    pub input: Option<Raw<'a>>,
}

/// A `tool_result` block.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult<'a> {
    /// Identity of the call that it answers.
    pub id: Text<'a>,
    /// What the tool returned; absent and `null` mean nothing.
    pub content: Option<Content<'a>>,
    /// Whether the tool failed.
    pub is_error: bool,
}

impl<'a> Content<'a> {
    /// Reads a string or an array of blocks.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        match reader.kind()? {
            Kind::Text => reader.string().map(Self::Text),
            Kind::List => {
                let mut blocks = Vec::new();
                reader.list(|reader| {
                    blocks.push(Block::read(reader)?);
                    Ok(())
                })?;
                Ok(Self::Blocks(blocks))
            }
            _ => {
                reader.raw()?;
                Err(ParseError::expected("a string or an array of blocks"))
            }
        }
    }

    /// Like [`Content::read`]; `null` is nothing.
    fn read_optional(reader: &mut Reader<'a>) -> Result<Option<Self>, ParseError> {
        if reader.kind()? == Kind::Null {
            reader.raw()?;
            return Ok(None);
        }
        Self::read(reader).map(Some)
    }
}

/// A field whose type is only checked once the block's kind is known.
#[derive(Clone, Copy, Default)]
enum Field<'a> {
    #[default]
    Absent,
    Text(Text<'a>),
    /// Neither a string nor `null`.
    Wrong,
}

impl<'a> Field<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        Ok(match reader.kind()? {
            Kind::Text => Self::Text(reader.string()?),
            Kind::Null => {
                reader.raw()?;
                Self::Absent
            }
            _ => {
                reader.raw()?;
                Self::Wrong
            }
        })
    }

    fn optional(self, name: &str) -> Result<Option<Text<'a>>, ParseError> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            Self::Wrong => Err(ParseError::expected("a string").within(name)),
        }
    }

    fn required(self, name: &str) -> Result<Text<'a>, ParseError> {
        self.optional(name)?
            .ok_or_else(|| ParseError::missing(name))
    }
}

/// `content` of a block whose kind may not be known yet.
enum Held<'a> {
    Raw(Raw<'a>),
    Read(Option<Content<'a>>),
}

/// The fields of any block that ccx knows, before it is known which block it is.
#[derive(Default)]
struct Draft<'a> {
    kind: Option<Cow<'a, str>>,
    text: Field<'a>,
    id: Field<'a>,
    name: Field<'a>,
    tool_use_id: Field<'a>,
    tool_name: Field<'a>,
    thinking: Field<'a>,
    signature: Field<'a>,
    data: Field<'a>,
    title: Field<'a>,
    context: Field<'a>,
    input: Option<Raw<'a>>,
    content: Option<Held<'a>>,
    source: Option<Raw<'a>>,
    is_error: Option<Raw<'a>>,
}

impl<'a> Block<'a> {
    /// Reads one block.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut draft = Draft::default();
        reader.object(|reader, key| {
            match key {
                "type" => draft.kind = Some(reader.string()?.value()),
                "text" => draft.text = Field::read(reader)?,
                "id" => draft.id = Field::read(reader)?,
                "name" => draft.name = Field::read(reader)?,
                "tool_use_id" => draft.tool_use_id = Field::read(reader)?,
                "tool_name" => draft.tool_name = Field::read(reader)?,
                "thinking" => draft.thinking = Field::read(reader)?,
                "signature" => draft.signature = Field::read(reader)?,
                "data" => draft.data = Field::read(reader)?,
                "title" => draft.title = Field::read(reader)?,
                "context" => draft.context = Field::read(reader)?,
                "input" => draft.input = Some(reader.raw()?),
                "source" => draft.source = Some(reader.raw()?),
                "is_error" => draft.is_error = Some(reader.raw()?),
                // The client writes the kind first, so that results are read in one go.
                "content" if draft.kind.as_deref() == Some("tool_result") => {
                    draft.content = Some(Held::Read(Content::read_optional(reader)?));
                }
                "content" => draft.content = Some(Held::Raw(reader.raw()?)),
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        draft.finish()
    }
}

impl<'a> Draft<'a> {
    fn finish(self) -> Result<Block<'a>, ParseError> {
        let Some(kind) = self.kind else {
            return Err(ParseError::missing("type"));
        };
        Ok(match kind.as_ref() {
            "text" => Block::Text(self.text.required("text")?),
            "image" => Block::Image(source(self.source)?),
            "document" => Block::Document(Document {
                source: source(self.source)?,
                title: self.title.optional("title")?,
                context: self.context.optional("context")?,
            }),
            "tool_use" => Block::ToolUse(call(self.id, self.name, self.input)?),
            "server_tool_use" => Block::ServerToolUse(call(self.id, self.name, self.input)?),
            "tool_result" => Block::ToolResult(ToolResult {
                id: self.tool_use_id.required("tool_use_id")?,
                content: match self.content {
                    None => None,
                    Some(Held::Read(content)) => content,
                    Some(Held::Raw(raw)) => Content::read_optional(&mut raw.reader())
                        .map_err(|error| error.within("content"))?,
                },
                is_error: flag(self.is_error, "is_error")?,
            }),
            "tool_reference" => Block::ToolReference(self.tool_name.required("tool_name")?),
            "thinking" => Block::Thinking {
                thinking: self.thinking.optional("thinking")?.unwrap_or_default(),
                signature: self.signature.optional("signature")?.unwrap_or_default(),
            },
            "redacted_thinking" => {
                Block::RedactedThinking(self.data.optional("data")?.unwrap_or_default())
            }
            "web_search_tool_result" => match self.content {
                Some(Held::Raw(raw)) => Block::WebSearchResult(raw),
                _ => Block::Other(kind),
            },
            _ => Block::Other(kind),
        })
    }
}

fn call<'a>(
    id: Field<'a>,
    name: Field<'a>,
    input: Option<Raw<'a>>,
) -> Result<ToolUse<'a>, ParseError> {
    Ok(ToolUse {
        id: id.required("id")?,
        name: name.required("name")?,
        input: input.filter(|input| input.kind() != Kind::Null),
    })
}

fn flag(raw: Option<Raw<'_>>, name: &str) -> Result<bool, ParseError> {
    match raw.map(|raw| (raw.kind(), raw.text())) {
        None | Some((Kind::Null, _)) => Ok(false),
        Some((Kind::Bool, text)) => Ok(text == "true"),
        Some(_) => Err(ParseError::expected("true or false").within(name)),
    }
}

fn source(raw: Option<Raw<'_>>) -> Result<Source<'_>, ParseError> {
    let raw = raw
        .filter(|raw| raw.kind() != Kind::Null)
        .ok_or_else(|| ParseError::missing("source"))?;
    Source::read(&mut raw.reader()).map_err(|error| error.within("source"))
}

impl<'a> Source<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, ParseError> {
        let mut kind = None;
        let mut media_type = Field::default();
        let mut data = Field::default();
        let mut url = Field::default();
        let mut content = None;
        reader.object(|reader, key| {
            match key {
                "type" => kind = Some(reader.string()?.value()),
                "media_type" => media_type = Field::read(reader)?,
                "data" => data = Field::read(reader)?,
                "url" => url = Field::read(reader)?,
                "content" => content = Some(reader.raw()?),
                _ => drop(reader.raw()?),
            }
            Ok(())
        })?;
        let Some(kind) = kind else {
            return Err(ParseError::missing("type"));
        };
        Ok(match kind.as_ref() {
            "base64" => Self::Base64 {
                media_type: media_type.required("media_type")?,
                data: data.required("data")?,
            },
            "url" => Self::Url(url.required("url")?),
            "text" => Self::Text(data.required("data")?),
            "content" => {
                let content = content.ok_or_else(|| ParseError::missing("content"))?;
                Self::Content(
                    Content::read(&mut content.reader())
                        .map_err(|error| error.within("content"))?,
                )
            }
            _ => Self::Other(kind),
        })
    }
}
