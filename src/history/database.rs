//! The database file: its tables, what goes in, what is found, and its bounds.
//!
//! Several processes have it open at once (SQLite's write-ahead log). Whoever is killed in the middle leaves whole
//! transactions; a power cut may cost the last ones. Knows no clock: `now` is passed in.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, Row, params, params_from_iter};

use crate::history::plot::{Part, Span, Step};
use crate::history::record::{Ending, Filter, Level, OfModel, Record, Session, Since, Sums};
use crate::wire::responses::Usage;

/// The format that this ccx writes (`user_version`).
const VERSION: i64 = 1;

/// How long another process's transaction is waited for: each takes milliseconds.
const BUSY: Duration = Duration::from_secs(2);

/// What is kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Single requests.
    pub rows: u64,
    /// How long single requests and readings of plans are kept.
    pub days: u64,
    /// How long sums of hours are kept.
    pub hour_days: u64,
    /// Bytes of the whole file.
    pub bytes: u64,
}

impl Default for Bounds {
    /// A busy day has some thousands of requests of about 400 bytes.
    fn default() -> Self {
        Self {
            rows: 200_000,
            days: 90,
            hour_days: 400,
            bytes: 256 * 1024 * 1024,
        }
    }
}

/// Why the database did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The file is no database, or a damaged one.
    #[error("the file is damaged")]
    Damaged(#[source] rusqlite::Error),
    /// Another process has it for too long.
    #[error("another process keeps it busy")]
    Busy(#[source] rusqlite::Error),
    /// There is no room, or the file may not be written.
    #[error("it cannot be written")]
    Unwritable(#[source] rusqlite::Error),
    /// A later ccx made it.
    #[error("a later version of ccx made it (format {version})")]
    Newer {
        /// Its format.
        version: i64,
    },
    /// The file cannot be made or opened.
    #[error("it cannot be opened")]
    Io(#[from] io::Error),
    /// Something else.
    #[error("it cannot be read")]
    Other(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error),
            Some(
                ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::TooBig,
            ) => Self::Unwritable(error),
            _ => Self::Other(error),
        }
    }
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    bounds: Bounds,
}

/// Returns where it is kept below the state directory.
pub fn path(state: &Path) -> PathBuf {
    state.join("history.db")
}

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS requests (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    conversation TEXT NOT NULL,
    account TEXT NOT NULL,
    asked TEXT NOT NULL,
    model TEXT NOT NULL,
    served TEXT,
    class TEXT NOT NULL,
    lane TEXT,
    effort TEXT,
    tier TEXT,
    stream INTEGER,
    why_account TEXT,
    attempts INTEGER NOT NULL,
    hops INTEGER NOT NULL,
    cache_lost INTEGER NOT NULL,
    prepared_ms INTEGER NOT NULL,
    first_byte_ms INTEGER,
    first_content_ms INTEGER,
    total_ms INTEGER NOT NULL,
    input_tokens INTEGER,
    cached_tokens INTEGER,
    output_tokens INTEGER,
    reasoning_tokens INTEGER,
    estimated INTEGER NOT NULL,
    losses TEXT,
    outcome INTEGER NOT NULL,
    status INTEGER,
    message TEXT,
    captured INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS requests_at ON requests (at);
CREATE INDEX IF NOT EXISTS requests_conversation ON requests (conversation, at);
CREATE TABLE IF NOT EXISTS hours (
    hour INTEGER NOT NULL,
    model TEXT NOT NULL,
    account TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    PRIMARY KEY (hour, model, account)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS levels (
    account TEXT NOT NULL,
    window TEXT NOT NULL,
    at INTEGER NOT NULL,
    used_percent REAL NOT NULL,
    PRIMARY KEY (account, window, at)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

const COLUMNS: &str = "row, id, at, conversation, account, asked, model, served, class, lane, effort, tier, stream, \
     why_account, attempts, hops, cache_lost, prepared_ms, first_byte_ms, first_content_ms, total_ms, input_tokens, \
     cached_tokens, output_tokens, reasoning_tokens, estimated, losses, outcome, status, message, captured";

const SUMS: &str = "count(*), sum(outcome = 1), sum(outcome = 2), sum(input_tokens), sum(cached_tokens), \
     sum(output_tokens), sum(reasoning_tokens)";

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn counted(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, Option<i64>>(at)?.map_or(0, natural))
}

fn maybe(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(natural))
}

impl Database {
    /// Opens the database in the directory `state`, and makes it where there is none: for its owner alone.
    ///
    /// # Errors
    ///
    /// It is damaged, of a later version, busy, or cannot be made.
    pub fn open(state: &Path, bounds: Bounds) -> Result<Self, Trouble> {
        let path = path(state);
        // SQLite gives its log and its index the mode of the file.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)?;
        let connection = connect(&path)?;
        let version = version(&connection)?;
        if version == 0 {
            connection.pragma_update(None, "auto_vacuum", 2)?;
        }
        // Its answer is a row.
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        // A power cut may cost the last transactions, a killed process none.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.query_row("PRAGMA journal_size_limit = 4194304", [], |_| Ok(()))?;
        if version == 0 {
            connection.execute_batch(&format!("BEGIN IMMEDIATE;{TABLES}COMMIT;"))?;
        }
        Ok(Self { connection, bounds })
    }

    /// Opens it to look only. `None`: there is nothing yet.
    ///
    /// # Errors
    ///
    /// As [`Database::open`].
    pub fn look(state: &Path) -> Result<Option<Self>, Trouble> {
        let path = path(state);
        if !path.try_exists()? {
            return Ok(None);
        }
        let connection = connect(&path)?;
        if version(&connection)? == 0 {
            return Ok(None);
        }
        connection.pragma_update(None, "query_only", true)?;
        let bounds = Bounds::default();
        Ok(Some(Self { connection, bounds }))
    }

    /// Keeps `records` and `levels`, all or none. A request that is kept already is not counted again.
    ///
    /// # Errors
    ///
    /// Nothing was kept.
    pub fn keep(&mut self, records: &[Record], levels: &[Level]) -> Result<(), Trouble> {
        let transaction = self.connection.transaction()?;
        {
            let marks = vec!["?"; COLUMNS.split(',').count() - 1].join(", ");
            let columns = COLUMNS.trim_start_matches("row, ");
            let mut request = transaction.prepare_cached(&format!(
                "INSERT OR IGNORE INTO requests ({columns}) VALUES ({marks})"
            ))?;
            let mut hour = transaction.prepare_cached(
                "INSERT INTO hours VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT DO UPDATE SET requests = requests + 1, failed = failed + excluded.failed,
                 cancelled = cancelled + excluded.cancelled, input_tokens = input_tokens + excluded.input_tokens,
                 cached_tokens = cached_tokens + excluded.cached_tokens,
                 output_tokens = output_tokens + excluded.output_tokens,
                 reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens",
            )?;
            for record in records {
                if request.execute(params_from_iter(values(record)))? == 0 {
                    continue;
                }
                let usage = record.usage.unwrap_or_default();
                hour.execute(params![
                    whole(record.at - record.at % 3_600),
                    record.model,
                    record.account,
                    record.ending == Ending::Failed,
                    record.ending == Ending::Cancelled,
                    whole(usage.input_tokens),
                    whole(usage.cached_tokens),
                    whole(usage.output_tokens),
                    whole(usage.reasoning_tokens),
                ])?;
            }
            let mut reading =
                transaction.prepare_cached("INSERT OR REPLACE INTO levels VALUES (?, ?, ?, ?)")?;
            for level in levels {
                let at = whole(level.at);
                reading.execute(params![level.account, level.window, at, level.used_percent])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// Forgets what is older or more than the bounds, and gives the room back.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn trim(&mut self, now: u64) -> Result<(), Trouble> {
        const DAY: u64 = 86_400;
        let bounds = self.bounds;
        let since = |days: u64| whole(now.saturating_sub(days * DAY));
        self.connection.execute(
            "DELETE FROM requests WHERE at < ? OR row <= (SELECT max(row) FROM requests) - ?",
            params![since(bounds.days), whole(bounds.rows)],
        )?;
        let (hours, days) = (since(bounds.hour_days), since(bounds.days));
        self.connection
            .execute("DELETE FROM hours WHERE hour < ?", [hours])?;
        self.connection
            .execute("DELETE FROM levels WHERE at < ?", [days])?;
        while self.used_bytes()? > bounds.bytes {
            let gone = self.connection.execute(
                "DELETE FROM requests WHERE row <= (SELECT min(row) + (max(row) - min(row)) / 10 FROM requests)",
                [],
            )?;
            if gone == 0 {
                break;
            }
        }
        self.connection.execute_batch("PRAGMA incremental_vacuum")?;
        Ok(())
    }

    /// Says whether SQLite finds nothing wrong with it. Reads the whole file.
    pub fn is_sound(&self) -> bool {
        let told = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        told.is_ok_and(|told| told == "ok")
    }

    /// Returns how much of the file is in use.
    fn used_bytes(&self) -> Result<u64, Trouble> {
        let pragma = |name: &str| -> Result<u64, Trouble> {
            let value = self
                .connection
                .pragma_query_value(None, name, |row| row.get(0));
            Ok(natural(value?))
        };
        Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
    }

    /// Returns the newest `limit` requests that pass `filter`, newest first.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn requests(&self, filter: &Filter, limit: usize) -> Result<Vec<Record>, Trouble> {
        let mut sql = format!("SELECT {COLUMNS} FROM requests WHERE 1");
        let mut values: Vec<Value> = Vec::new();
        if let Some(before) = filter.before {
            sql.push_str(" AND row < ?");
            values.push(before.into());
        }
        if let Some(ending) = filter.ending {
            sql.push_str(" AND outcome = ?");
            values.push(ending.number().into());
        }
        if let Some(model) = &filter.model {
            sql.push_str(" AND (model = ? OR asked = ?)");
            values.extend([model.clone().into(), model.clone().into()]);
        }
        if let Some(account) = &filter.account {
            sql.push_str(" AND account = ?");
            values.push(account.clone().into());
        }
        if let Some(words) = &filter.words {
            let pattern = format!("%{}%", escaped(words));
            let columns = [
                "id",
                "conversation",
                "asked",
                "model",
                "served",
                "class",
                "message",
            ];
            let each = columns.map(|column| format!("{column} LIKE ? ESCAPE '\\'"));
            sql.push_str(&format!(" AND ({})", each.join(" OR ")));
            values.extend(columns.map(|_| pattern.clone().into()));
        }
        sql.push_str(" ORDER BY row DESC LIMIT ?");
        values.push(whole(limit as u64).into());
        let mut statement = self.connection.prepare(&sql)?;
        let found = statement.query_map(params_from_iter(values), read)?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Returns the request of this id.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn request(&self, id: &str) -> Result<Option<Record>, Trouble> {
        let sql = format!("SELECT {COLUMNS} FROM requests WHERE id = ?");
        let mut statement = self.connection.prepare(&sql)?;
        let found = statement.query_map([id], read)?.next();
        Ok(found.transpose()?)
    }

    /// Returns what there was since `since`.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn since(&self, since: u64) -> Result<Since, Trouble> {
        let sql = format!(
            "SELECT model, {SUMS} FROM requests WHERE at >= ? GROUP BY model \
             ORDER BY sum(input_tokens) + sum(output_tokens) DESC, model"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut found = statement.query([whole(since)])?;
        let mut all = Since::default();
        while let Some(row) = found.next()? {
            let sums = sums(row, 1)?;
            all.sums.add(&sums);
            let model: String = row.get(0)?;
            // What was refused before it came to a model has none.
            if !model.is_empty() {
                all.by_model.push(OfModel {
                    model,
                    requests: sums.requests,
                    input_tokens: sums.input_tokens,
                    cached_tokens: sums.cached_tokens,
                    output_tokens: sums.output_tokens,
                });
            }
        }
        Ok(all)
    }

    /// Returns the conversations that asked something since `since`, at most `limit`, newest first.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn sessions(&self, since: u64, limit: usize) -> Result<Vec<Session>, Trouble> {
        let sql = format!(
            "SELECT conversation, min(at), max(at), {SUMS} FROM requests WHERE conversation IN \
             (SELECT conversation FROM requests WHERE at >= ?1 AND conversation <> '' \
             GROUP BY conversation ORDER BY max(at) DESC LIMIT ?2) \
             GROUP BY conversation ORDER BY max(at) DESC, conversation"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let limit = whole(limit as u64);
        let found = statement.query_map([whole(since), limit], |row| {
            let sums = sums(row, 3)?;
            Ok(Session {
                conversation: row.get(0)?,
                since: counted(row, 1)?,
                last_at: counted(row, 2)?,
                requests: sums.requests,
                input_tokens: sums.input_tokens,
                cached_tokens: sums.cached_tokens,
                output_tokens: sums.output_tokens,
                ..Session::default()
            })
        })?;
        let mut sessions = found.collect::<Result<Vec<_>, _>>()?;
        // The conversation that the person sees says more than what runs beside it.
        let mut last = self.connection.prepare(
            "SELECT account, asked, model, effort, class, input_tokens + output_tokens FROM requests \
             WHERE conversation = ? ORDER BY class = 'main' AND input_tokens IS NOT NULL DESC, row DESC LIMIT 1",
        )?;
        for session in &mut sessions {
            let Session {
                account,
                asked,
                model,
                effort,
                class,
                context_tokens,
                ..
            } = session;
            let found = last.query_row([&session.conversation], |row| {
                let class: String = row.get(4)?;
                let context = maybe(row, 5)?.filter(|_| class == "main");
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    class,
                    context,
                ))
            })?;
            (*account, *asked, *model, *effort, *class, *context_tokens) = found;
        }
        Ok(sessions)
    }

    /// Returns what `span` is plotted of.
    ///
    /// Hours and days come from sums that outlive the single requests; how long requests took is known of single ones
    /// only.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn parts(&self, span: &Span) -> Result<Vec<Part>, Trouble> {
        let (from, to) = (whole(span.from), whole(span.to));
        let is_fine = span.step == Step::Minute;
        let mut parts = Vec::new();
        if !is_fine {
            let mut statement = self.connection.prepare(
                "SELECT hour, model, account, requests, failed, cancelled, input_tokens, cached_tokens, \
                 output_tokens, reasoning_tokens FROM hours WHERE hour >= ? AND hour < ? ORDER BY hour",
            )?;
            let found = statement.query_map([from - from % 3_600, to], |row| {
                Ok(Part {
                    at: counted(row, 0)?,
                    model: row.get(1)?,
                    account: row.get(2)?,
                    sums: sums(row, 3)?,
                    ..Part::default()
                })
            })?;
            for part in found {
                parts.push(part?);
            }
        }
        let mut statement = self.connection.prepare(
            "SELECT at, model, account, 1, outcome = 1, outcome = 2, input_tokens, cached_tokens, output_tokens, \
             reasoning_tokens, first_byte_ms, total_ms, outcome FROM requests WHERE at >= ? AND at < ? ORDER BY at",
        )?;
        let found = statement.query_map([from, to], |row| {
            let is_answered = row.get::<_, i64>(12)? == Ending::Done.number();
            let mut part = Part {
                at: counted(row, 0)?,
                first_byte_ms: maybe(row, 10)?,
                total_ms: maybe(row, 11)?.filter(|_| is_answered),
                ..Part::default()
            };
            if is_fine {
                part.model = row.get(1)?;
                part.account = row.get(2)?;
                part.sums = sums(row, 3)?;
            }
            Ok(part)
        })?;
        for part in found {
            parts.push(part?);
        }
        Ok(parts)
    }

    /// Returns the readings of plans from `from` to before `to`, and of each window the last one before.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn levels(&self, from: u64, to: u64) -> Result<Vec<Level>, Trouble> {
        let mut statement = self.connection.prepare(
            "SELECT account, window, at, used_percent FROM levels WHERE at >= ? AND at < ? ORDER BY at",
        )?;
        let found = statement.query_map([whole(from), whole(to)], |row| {
            Ok(Level {
                account: row.get(0)?,
                window: row.get(1)?,
                at: counted(row, 2)?,
                used_percent: row.get(3)?,
            })
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }
}

/// Puts a damaged database aside as `history.db.damaged`, in the place of an earlier one. For whoever keeps other
/// processes from doing the same.
///
/// # Errors
///
/// The system refuses to rename it.
pub fn set_aside(state: &Path) -> io::Result<PathBuf> {
    let path = path(state);
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = beside(".damaged");
    fs::rename(&path, &aside)?;
    for end in ["-wal", "-shm"] {
        match fs::remove_file(beside(end)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

fn connect(path: &Path) -> Result<Connection, Trouble> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // 512 kB: what is asked is at the end of the file.
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

fn version(connection: &Connection) -> Result<i64, Trouble> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Err(Trouble::Newer { version });
    }
    Ok(version)
}

/// What a request is, in the order of [`COLUMNS`] without the first.
fn values(record: &Record) -> Vec<Value> {
    let text = |text: &str| Value::from(text.to_owned());
    let word = |word: &Option<String>| Value::from(word.clone());
    let number = |number: u64| Value::from(whole(number));
    let perhaps = |number: Option<u64>| Value::from(number.map(whole));
    let of_usage = |of: fn(&Usage) -> u64| Value::from(record.usage.as_ref().map(of).map(whole));
    let losses = match record.losses.is_empty() {
        true => None,
        false => serde_json::to_string(&record.losses).ok(),
    };
    vec![
        text(&record.id),
        number(record.at),
        text(&record.conversation),
        text(&record.account),
        text(&record.asked),
        text(&record.model),
        word(&record.served),
        text(&record.class),
        word(&record.lane),
        word(&record.effort),
        word(&record.tier),
        Value::from(record.is_stream.map(i64::from)),
        word(&record.why_account),
        number(record.attempts),
        number(record.hops),
        number(record.cache_lost),
        number(record.prepared_ms),
        perhaps(record.first_byte_ms),
        perhaps(record.first_content_ms),
        number(record.total_ms),
        of_usage(|usage| usage.input_tokens),
        of_usage(|usage| usage.cached_tokens),
        of_usage(|usage| usage.output_tokens),
        of_usage(|usage| usage.reasoning_tokens),
        i64::from(record.is_estimate).into(),
        losses.into(),
        record.ending.number().into(),
        Value::from(record.status.map(i64::from)),
        word(&record.message),
        i64::from(record.has_capture).into(),
    ]
}

fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
    let usage = match maybe(row, 21)? {
        None => None,
        Some(input_tokens) => Some(Usage {
            input_tokens,
            cached_tokens: counted(row, 22)?,
            output_tokens: counted(row, 23)?,
            reasoning_tokens: counted(row, 24)?,
        }),
    };
    let losses: Option<String> = row.get(26)?;
    let losses = losses.and_then(|text| serde_json::from_str::<BTreeMap<_, _>>(&text).ok());
    let ending: i64 = row.get(27)?;
    let ending = Ending::ALL
        .into_iter()
        .find(|known| known.number() == ending);
    Ok(Record {
        row: row.get(0)?,
        id: row.get(1)?,
        at: counted(row, 2)?,
        conversation: row.get(3)?,
        account: row.get(4)?,
        asked: row.get(5)?,
        model: row.get(6)?,
        served: row.get(7)?,
        class: row.get(8)?,
        lane: row.get(9)?,
        effort: row.get(10)?,
        tier: row.get(11)?,
        is_stream: row.get(12)?,
        why_account: row.get(13)?,
        attempts: counted(row, 14)?,
        hops: counted(row, 15)?,
        cache_lost: counted(row, 16)?,
        prepared_ms: counted(row, 17)?,
        first_byte_ms: maybe(row, 18)?,
        first_content_ms: maybe(row, 19)?,
        total_ms: counted(row, 20)?,
        usage,
        is_estimate: row.get(25)?,
        losses: losses.unwrap_or_default(),
        ending: ending.unwrap_or(Ending::Failed),
        status: row.get(28)?,
        message: row.get(29)?,
        has_capture: row.get(30)?,
    })
}

/// Reads seven sums from the column `at` on.
fn sums(row: &Row<'_>, at: usize) -> rusqlite::Result<Sums> {
    Ok(Sums {
        requests: counted(row, at)?,
        failed: counted(row, at + 1)?,
        cancelled: counted(row, at + 2)?,
        input_tokens: counted(row, at + 3)?,
        cached_tokens: counted(row, at + 4)?,
        output_tokens: counted(row, at + 5)?,
        reasoning_tokens: counted(row, at + 6)?,
    })
}

/// Makes letters of what would be marks in a pattern.
fn escaped(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.chars() {
        if matches!(c, '%' | '_' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
