//! What is kept on disk about the user's settings file while it is not as the user left it, and how to give it back.
//!
//! Works on texts and values only: `succession` decides what is written when, `lease` does it. Laws, which the tests
//! check with a crash after every step:
//!
//! - The journal on disk always tells how to give the file back, however far the writer came.
//! - Where nobody else wrote, the file comes back to the byte. Otherwise key by key: what still is ours goes back to
//!   what it was, everything else stays as it is (contract supervision L9).

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::patch::{Document, Place, Refused, quoted, said};
use crate::secret::Secret;

/// The version of the journal's form. A newer one is left alone.
pub const VERSION: u32 = 1;

/// Names the proxy in the client's settings.
const URL: &str = "ANTHROPIC_BASE_URL";

/// Shows the proxy that the client may use it.
const TOKEN: &str = "ANTHROPIC_AUTH_TOKEN";

/// Begins every token that a lease writes, so that one that was left behind is known without a journal.
pub const TOKEN_PREFIX: &str = "ccx-lease-";

/// Begins the address of every proxy of ours.
const LOOPBACK: &str = "http://127.0.0.1:";

/// The client's choice of a model.
const MODEL: &str = "model";

/// Values of ours that are remembered: those of as many hand-overs. Only the last ones can stand in the file.
const WRITTEN_LIMIT: usize = 64;

/// Most that anybody may do with the file while a token of ours is in it.
const PRIVATE: u32 = 0o600;

/// What a file holds, and its mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The text.
    pub text: String,
    /// The permission bits.
    pub mode: u32,
}

/// The settings file as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// There is none.
    Absent,
    /// Settings.
    File {
        /// What it holds.
        document: Document,
        /// The permission bits.
        mode: u32,
    },
    /// Something that is never written.
    Unusable(Refused),
}

/// A running ccx, as others need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its name; also that of the lock that it holds for life.
    pub id: String,
    /// Its proxy.
    pub url: String,
    /// What its proxy lets in, beside the secret of its own client. Begins with [`TOKEN_PREFIX`].
    pub token: Secret<String>,
    /// How it was asked to use the file.
    pub wish: Wish,
    /// Whether the lease may pass to it.
    #[serde(default)]
    pub inherits: bool,
}

/// Whether a launch points the user's settings file at its proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Where that draws in nobody who was there before.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

impl Wish {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Never];

    /// Returns the word that stands for it in `config.toml` and behind `--ccx-lease`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// What is kept for one settings file while a ccx runs, and until the file is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// [`VERSION`].
    pub version: u32,
    /// The settings file, links resolved.
    pub target: String,
    /// Those that run, in the order of their start.
    pub sessions: Vec<Session>,
    /// The client's choice of a model.
    pub(super) model: Model,
    /// What was done to the file.
    pub(super) lease: Option<Lease>,
}

/// The choice of a model in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Model {
    /// As it was written before it named one of ours.
    pub(super) before: Option<String>,
    /// The names that mean nothing without ccx.
    pub(super) ours: Vec<String>,
}

/// Our keys in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// What to give back if nobody else writes; `None`: no file.
    before: Option<Content>,
    /// Contents for which that holds.
    images: Vec<String>,
    /// Whether the file's directory was made for it.
    pub(super) made_directory: bool,
    /// The keys that are ours until somebody else writes them.
    keys: Vec<Key>,
    /// What of ours may stand in them.
    written: Vec<Values>,
    pub(super) holder: Holder,
    /// Whether a client that ccx did not start was served.
    pub(super) served: bool,
    /// Whether a client was drawn in that ran before.
    pub(super) drew: bool,
}

/// Who will give the file back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Holder {
    /// A session.
    Session(String),
    /// The process of that name, once running clients have seen the landing values.
    Lander(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    place: Place,
    /// As it was written; `None`: it was not there.
    before: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Values {
    url: String,
    token: Secret<String>,
}

/// The file without what is ours.
pub(super) struct Clean {
    /// What it holds then; `None`: it is not there.
    pub(super) content: Option<Content>,
    /// The keys that still held a value of ours.
    pub(super) keys: Vec<Place>,
    /// What the person has picked since the start: one of our models, or (`None`) something else.
    pub(super) pick: Option<Option<String>>,
}

impl Clean {
    /// Says whether a running client has to be told before the keys may vanish: it keeps the last value of a key that
    /// is no more (contract supervision F4).
    pub(super) fn needs_landing(&self) -> bool {
        keys(self.content.as_ref(), &self.keys)
            .iter()
            .any(|key| key.before.is_none())
    }
}

impl Current {
    /// Reads what a file holds.
    pub fn read(bytes: &[u8], mode: u32) -> Self {
        match Document::read(bytes) {
            Ok(document) => Self::File { document, mode },
            Err(refused) => Self::Unusable(refused),
        }
    }

    /// Returns it as it would be written; `None` if there is no file, or none that is read.
    pub fn content(&self) -> Option<Content> {
        let Self::File { document, mode } = self else {
            return None;
        };
        Some(Content {
            text: document.text().to_owned(),
            mode: *mode,
        })
    }

    /// Returns the model that it chooses, as it is written.
    pub(super) fn model(&self) -> Option<&str> {
        match self {
            Self::File { document, .. } => document.get(&Place::Top(MODEL.to_owned())),
            Self::Absent | Self::Unusable(_) => None,
        }
    }

    /// Returns the address of a proxy whose token is in the file and begins as ours do, whoever wrote it.
    pub fn leased_to(&self) -> Option<String> {
        let Self::File { document, .. } = self else {
            return None;
        };
        let value = |name: &str| said(document.get(&Place::Env(name.to_owned()))?);
        value(TOKEN)?.starts_with(TOKEN_PREFIX).then_some(())?;
        Some(value(URL).unwrap_or_default())
    }
}

impl Journal {
    /// Makes one for a file that nobody has touched.
    pub fn new(target: String) -> Self {
        Self {
            version: VERSION,
            target,
            sessions: Vec::new(),
            model: Model::default(),
            lease: None,
        }
    }

    /// Returns the session that holds the lease, if it is among those that are known.
    pub fn holder(&self) -> Option<&Session> {
        match &self.lease.as_ref()?.holder {
            Holder::Session(id) => self.session(id),
            Holder::Lander(_) => None,
        }
    }

    /// Returns the name of the process that waits for running clients.
    pub fn lander(&self) -> Option<&str> {
        match &self.lease.as_ref()?.holder {
            Holder::Lander(id) => Some(id),
            Holder::Session(_) => None,
        }
    }

    /// Says whether the file holds, or may hold, something of ours.
    pub const fn is_leased(&self) -> bool {
        self.lease.is_some()
    }

    /// Returns the session of that name.
    pub fn session(&self, id: &str) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == id)
    }

    /// Returns the file as it would be without us; `None` if it cannot be edited. With `is_over`, a model of ours that
    /// was picked is taken out too.
    pub(super) fn clean(&self, current: &Current, is_over: bool) -> Option<Clean> {
        let (document, mode) = match current {
            Current::Unusable(_) => return None,
            Current::Absent => {
                return Some(Clean {
                    content: None,
                    keys: Vec::new(),
                    pick: None,
                });
            }
            Current::File { document, mode } => (document, *mode),
        };
        let before = self.lease.as_ref().and_then(|lease| lease.before.as_ref());
        // Whoever gave the file another mode than we did wants that one.
        let mode = match before {
            Some(before) if mode == leased_mode(Some(before)) => before.mode,
            _ => mode,
        };
        let image = image(document.text());
        let unread = self
            .lease
            .as_ref()
            .filter(|lease| lease.images.contains(&image));
        let (mut document, keys) = match unread {
            // Only we wrote.
            Some(lease) => {
                let keys: Vec<_> = lease.keys.iter().map(|key| key.place.clone()).collect();
                let Some(before) = before else {
                    return Some(Clean {
                        content: None,
                        keys,
                        pick: None,
                    });
                };
                (parsed(before), keys)
            }
            None => {
                let mut document = document.clone();
                let keys = match &self.lease {
                    Some(lease) => lease.take_out(&mut document),
                    None => Vec::new(),
                };
                self.take_out_stray(&mut document);
                if document.is_empty() && !keys.is_empty() && before.is_none() {
                    return Some(Clean {
                        content: None,
                        keys,
                        pick: None,
                    });
                }
                (document, keys)
            }
        };
        let pick = match is_over {
            true => self.take_out_pick(&mut document),
            false => None,
        };
        Some(Clean {
            content: Some(Content {
                text: document.into_text(),
                mode,
            }),
            keys,
            pick,
        })
    }

    /// Says whether `current` holds a token that begins as ours do and that this journal knows nothing of.
    pub(super) fn is_stray(&self, document: &Document) -> bool {
        let token = document.get(&Place::Env(TOKEN.to_owned())).and_then(said);
        token.is_some_and(|token| {
            let known = |lease: &Lease| {
                let mut written = lease.written.iter();
                written.any(|values| *values.token.expose() == token)
            };
            token.starts_with(TOKEN_PREFIX) && !self.lease.as_ref().is_some_and(known)
        })
    }

    /// Takes out what a lease left behind whose journal is gone. What was there before it is not known.
    fn take_out_stray(&self, document: &mut Document) {
        if !self.is_stray(document) {
            return;
        }
        let url = Place::Env(URL.to_owned());
        document.remove(&Place::Env(TOKEN.to_owned()));
        let named = document.get(&url).and_then(said);
        if named.is_some_and(|named| named.starts_with(LOOPBACK)) {
            document.remove(&url);
        }
        document.remove_empty_env();
    }

    /// Takes a picked model of ours out. Returns what the person has picked since the start, if anything.
    fn take_out_pick(&self, document: &mut Document) -> Option<Option<String>> {
        let place = Place::Top(MODEL.to_owned());
        let now = document.get(&place).map(str::to_owned);
        if now == self.model.before {
            return None;
        }
        let named = now.as_deref().and_then(said);
        let Some(ours) = named.filter(|name| self.model.ours.contains(name)) else {
            return Some(None);
        };
        match &self.model.before {
            Some(before) => document.set(&place, before),
            None => {
                document.remove(&place);
            }
        }
        Some(Some(ours))
    }
}

/// Whose values the keys are to hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Write<'a> {
    /// A proxy's.
    Session(&'a Session),
    /// Those that send a running client back to where it would be without us (contract supervision F15).
    Landing,
}

impl Lease {
    /// Plans to write into a file that is `clean` without us and `current` now. `old` is what was done to it so far.
    /// Returns what the file is to hold, too.
    pub(super) fn plan(
        old: Option<Self>,
        current: &Current,
        clean: Option<Content>,
        places: &[Place],
        (holder, write): (Holder, Write<'_>),
    ) -> (Self, Option<Content>) {
        let keys = keys(clean.as_ref(), places);
        let content = with(clean.as_ref(), &keys, write);
        let images = [current.content(), content.clone()];
        let images = images.iter().flatten().map(|content| image(&content.text));
        let mut lease = Self {
            before: clean,
            images: images.collect(),
            made_directory: old.as_ref().is_some_and(|old| old.made_directory),
            keys,
            written: Vec::new(),
            holder,
            served: old.as_ref().is_some_and(|old| old.served),
            drew: old.as_ref().is_some_and(|old| old.drew),
        };
        lease.written = old.map_or_else(Vec::new, |old| old.written);
        let values = match write {
            Write::Session(session) => Values {
                url: session.url.clone(),
                token: session.token.clone(),
            },
            Write::Landing => Values {
                url: String::new(),
                token: Secret::default(),
            },
        };
        if !lease.written.contains(&values) {
            lease.written.push(values);
        }
        let surplus = lease.written.len().saturating_sub(WRITTEN_LIMIT);
        lease.written.drain(..surplus);
        (lease, content)
    }

    /// Puts every key that still is ours back to what it was. Returns those keys.
    fn take_out(&self, document: &mut Document) -> Vec<Place> {
        let mut ours = Vec::new();
        for key in &self.keys {
            // More than once only where somebody has doubled the key.
            while document
                .get(&key.place)
                .is_some_and(|now| self.is_ours(key, now))
            {
                if !ours.contains(&key.place) {
                    ours.push(key.place.clone());
                }
                match &key.before {
                    Some(before) => {
                        document.set(&key.place, before);
                        break;
                    }
                    None => {
                        document.remove(&key.place);
                    }
                }
            }
        }
        let had_env = self
            .before
            .as_ref()
            .is_some_and(|before| parsed(before).has_env());
        if !had_env && !ours.is_empty() {
            document.remove_empty_env();
        }
        ours
    }

    /// Says whether a value was written by us.
    fn is_ours(&self, key: &Key, now: &str) -> bool {
        let (Some(now), Place::Env(name)) = (said(now), &key.place) else {
            return false;
        };
        // A landing writes an empty one only where there was none before.
        let is_possible = !now.is_empty() || key.before.is_none();
        is_possible
            && self.written.iter().any(|values| match name.as_str() {
                URL => values.url == now,
                _ => *values.token.expose() == now,
            })
    }
}

/// The keys that a lease writes.
pub(super) fn places() -> [Place; 2] {
    [URL, TOKEN].map(|name| Place::Env(name.to_owned()))
}

/// Returns the model that a content chooses, as it is written.
pub(super) fn model_in(content: Option<&Content>) -> Option<String> {
    let place = Place::Top(MODEL.to_owned());
    parsed(content?).get(&place).map(str::to_owned)
}

/// The mode of the file while a token is in it.
fn leased_mode(before: Option<&Content>) -> u32 {
    before.map_or(PRIVATE, |before| before.mode & PRIVATE)
}

/// Keys with what they go back to.
fn keys(before: Option<&Content>, places: &[Place]) -> Vec<Key> {
    let document = before.map(parsed);
    let value = |place: &Place| document.as_ref()?.get(place).map(str::to_owned);
    let key = |place: &Place| Key {
        place: place.clone(),
        before: value(place),
    };
    places.iter().map(key).collect()
}

/// Returns `before` with our values in `keys`.
fn with(before: Option<&Content>, keys: &[Key], write: Write<'_>) -> Option<Content> {
    if keys.is_empty() {
        return before.cloned();
    }
    let mut document = match before {
        Some(before) => parsed(before),
        None => Document::read(b"{}\n").expect("an object"),
    };
    for key in keys {
        let Place::Env(name) = &key.place else {
            continue;
        };
        let value = match write {
            Write::Session(session) if name == URL => &session.url,
            Write::Session(session) => session.token.expose(),
            Write::Landing if key.before.is_none() => "",
            Write::Landing => continue,
        };
        document.set(&key.place, &quoted(value));
    }
    Some(Content {
        text: document.into_text(),
        mode: leased_mode(before),
    })
}

fn parsed(content: &Content) -> Document {
    Document::read(content.text.as_bytes()).expect("only settings are kept")
}

/// A digest of a text, to know it again.
fn image(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
