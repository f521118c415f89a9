//! The log and the registry on a Redis or Valkey server.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    WhenCutOff,
    log::{Entry, Extent, Position, Read, Reply, Sending},
    registry::{self, Survey, parse_id},
};
use crate::{
    remote::connection::{
        Address, Answer, Clock, Commands, Connection, Hello, ServerError, Value, accepted, bytes, commands,
        info_field, list, millis, refusal, text,
    },
    sequence::{Message, MessageKind, Strength},
    store::EntryId,
};

/// Longer than the server waits for a new entry.
const LOG_TIMEOUT: Duration = Duration::from_secs(3);
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
const CHUNK: usize = 512;
const MAX_LOG_ENTRIES: usize = 65_536;

/// Where a cluster is.
#[derive(Clone, Debug)]
pub(super) struct Server {
    address: Address,
    log: String,
    nodes: String,
}

impl Server {
    /// The keys of all nodes of a namespace share a slot of a cluster of servers.
    pub(super) fn new(address: Address, namespace: &str) -> Self {
        let (log, nodes) = (format!("{{{namespace}}}:1:purges"), format!("{{{namespace}}}:1:nodes"));
        Self { address, log, nodes }
    }

    /// A connection that is used by nothing but the reader of the log, and the run of the server if it says that.
    pub(super) async fn follow(&self) -> Answer<(Follower, Option<String>)> {
        let (mut connection, _) = self.address.connect().await?;
        let Hello { run, clock } = connection.hello().await?;
        Ok((Follower { connection, server: self.clone(), clock }, run))
    }

    /// Removes registrations. Those that the server refuses to remove stay.
    async fn forget(&self, connection: &mut Connection, names: &[String], limit: Duration) -> Answer<()> {
        let mut pipe = commands();
        pipe.cmd("HDEL").arg(&self.nodes).arg(names);
        connection.ask(&pipe, limit).await.map(drop)
    }

    /// What a node registers with, and reads the log by. It registers before it reads: what is logged before the others
    /// can see it is read. What comes behind the read was executed after it, also if it has waited.
    fn reading(
        &self,
        read: Read,
        Registering { name, run, when_cut_off }: Registering<'_>,
        now_ms: u64,
        is_due: bool,
    ) -> Commands {
        let Self { log, nodes, .. } = self;
        let mut pipe = commands();
        // First: what comes behind the read may have to wait.
        pipe.cmd("TIME");
        pipe.cmd("HSET").arg(nodes).arg(name).arg(registry::registration(
            run,
            read.reported(),
            now_ms,
            when_cut_off.lease(),
        ));
        pipe.cmd("HSETNX").arg(nodes).arg(registry::birth_field(run)).arg(now_ms);
        let from = read.from.map_or_else(|| "0-0".to_owned(), |position| position.id.to_string());
        pipe.cmd("XREAD");
        if read.may_wait {
            let longest = u64::try_from(when_cut_off.longest_wait().as_millis()).unwrap_or(1);
            pipe.arg("BLOCK").arg(longest.max(1));
        }
        pipe.arg("COUNT").arg(CHUNK).arg("STREAMS").arg(log).arg(&from);
        pipe.cmd("XRANGE").arg(log).arg(&from).arg(&from);
        pipe.cmd("XINFO").arg("STREAM").arg(log);
        if is_due {
            pipe.cmd("HGETALL").arg(nodes);
        }
        pipe
    }

    /// A connection for all else.
    pub(super) async fn writer(&self) -> Answer<Writer> {
        let (connection, _) = self.address.connect().await?;
        Ok(Writer { connection, server: self.clone() })
    }
}

/// As whom a node registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registering<'a> {
    pub(super) name: &'a str,
    pub(super) run: &'a str,
    pub(super) when_cut_off: WhenCutOff,
}

/// Fields and values of the registry.
pub(super) type Fields = Vec<(String, String)>;

/// What the server has answered to a read.
pub(super) struct Answered {
    pub(super) reply: Reply<Message>,
    /// What stands in the registry, if that was asked for.
    pub(super) fields: Option<Fields>,
    /// Whether the others can see that this node was there before it read.
    pub(super) is_registered: bool,
    /// Whether an empty log can be told from one that may not be read.
    pub(super) is_readable: bool,
    /// The first refusal of a command, in the server's words.
    pub(super) refusal: Option<String>,
}

/// Refusals of a registration that no later one on the same connection is free of: a primary that was demoted
/// takes none any more, while another server may stand behind its name by now.
const LASTING: [&str; 2] = ["READONLY ", "NOPERM "];

/// Of a log that is not there.
const NO_LOG: &str = "ERR no such key";

/// Follows the log.
pub(super) struct Follower {
    connection: Connection,
    server: Server,
    /// Read anew with each read of the log: it may be set, and the one here may stand still or run at another rate.
    clock: Clock,
}

impl Follower {
    /// Whether the server may drop the log when its memory is full, as far as it says: it may be forbidden to ask.
    pub(super) async fn may_evict_log(&mut self) -> Answer<bool> {
        let mut pipe = commands();
        pipe.cmd("CONFIG").arg("GET").arg("maxmemory-policy");
        let policy = self.connection.ask(&pipe, LOG_TIMEOUT).await?.pop();
        let policy = policy.and_then(|policy| field(policy, "maxmemory-policy"));
        Ok(policy.is_some_and(|policy| policy.starts_with("allkeys")))
    }

    /// The server's clock now.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Registers, reads, and asks for the anchor, in one write. Looks at the registry as well if that `is_due`.
    pub(super) async fn read(
        &mut self,
        read: Read,
        registering: Registering<'_>,
        is_due: bool,
    ) -> Answer<Answered> {
        let (now_ms, sent_at) = (self.now_ms(), Instant::now());
        let pipe = self.server.reading(read, registering, now_ms, is_due);
        let mut answers = self.connection.ask(&pipe, LOG_TIMEOUT).await?;
        let fields = if is_due { answers.pop() } else { None };
        let [time, registered, born, entries, anchor, info] =
            answers.try_into().map_err(|_| ServerError::Answer)?;
        self.clock = Clock::read(time, sent_at)?;
        let registering = [refusal(&registered), refusal(&born)];
        if let Some(why) = lasting(&registering) {
            return Err(ServerError::Refused(why.to_owned()));
        }
        let reading = [refusal(&entries), refusal(&anchor), refusal(&info)];
        let is_registered = registering.iter().all(Option::is_none);
        let (is_readable, has_failed) =
            (reading[..2].iter().all(Option::is_none), reading.iter().any(Option::is_some));
        let looking = fields.as_ref().and_then(refusal);
        let (entries, info) = (stream_entries(entries), StreamInfo(self::fields(info)));
        let reply = Reply {
            is_full: entries.len() >= CHUNK,
            anchor: list(anchor).into_iter().filter_map(entry).map(|entry| entry.position.nonce).next(),
            deleted: info.deleted(),
            extent: info.extent(),
            entries,
            has_failed,
        };
        let reading = reading.into_iter().flatten().filter(|why| why.trim_end() != NO_LOG);
        Ok(Answered {
            reply,
            fields: fields.filter(|_| looking.is_none()).map(self::fields),
            is_registered,
            is_readable,
            refusal: registering.into_iter().flatten().chain(reading).chain(looking).next(),
        })
    }

    /// Removes registrations.
    pub(super) async fn forget(&mut self, names: &[String]) -> Answer<()> {
        self.server.forget(&mut self.connection, names, LOG_TIMEOUT).await
    }

    /// Adds an entry to hold on to.
    pub(super) async fn mark(&mut self, name: &str) -> Answer<()> {
        let mut pipe = commands();
        pipe.cmd("XADD").arg(&self.server.log).arg("*");
        pipe.arg("k").arg("mark").arg("n").arg(fastrand::u64(..)).arg("w").arg(name);
        self.connection
            .ask(&pipe, LOG_TIMEOUT)
            .await?
            .into_iter()
            .try_for_each(|answer| accepted(answer).map(drop))
    }
}

/// Adds to the log, and looks at the registry.
pub(super) struct Writer {
    connection: Connection,
    server: Server,
}

impl Writer {
    /// Adds purges in their order, in one write. The server refuses those that are not among the result, for example
    /// because its memory is full.
    pub(super) async fn add(&mut self, purges: &[Sending], name: &str) -> Answer<Vec<Position>> {
        let mut pipe = commands();
        for Sending { nonce, message } in purges {
            pipe.cmd("XADD").arg(&self.server.log).arg("MAXLEN").arg("~").arg(MAX_LOG_ENTRIES).arg("*");
            pipe.arg("k").arg(kind_name(message.kind)).arg("a").arg(&*message.argument);
            pipe.arg("s").arg(strength_name(message.strength)).arg("n").arg(*nonce).arg("w").arg(name);
        }
        let answers = self.connection.ask(&pipe, WRITE_TIMEOUT).await?.into_iter();
        let position = |(answer, Sending { nonce, .. }): (Value, &Sending)| {
            let id = text(answer).as_deref().and_then(parse_id)?;
            Some(Position { id, nonce: *nonce })
        };
        Ok(answers.zip(purges).filter_map(position).collect())
    }

    /// What all nodes have said, and what stands at a position.
    pub(super) async fn survey(&mut self, position: Position) -> Answer<Survey> {
        let Server { log, nodes, .. } = &self.server;
        let id = position.id.to_string();
        let mut pipe = commands();
        pipe.cmd("XRANGE").arg(log).arg(&id).arg(&id);
        pipe.cmd("HGETALL").arg(nodes).cmd("INFO").arg("server").cmd("TIME");
        let answers = self.connection.ask(&pipe, WRITE_TIMEOUT).await?;
        let [found, fields, info, time] = answers.try_into().map_err(|_| ServerError::Answer)?;
        let info = text(info).unwrap_or_default();
        Ok(Survey {
            run: info_field(&info, "run_id").unwrap_or_default().to_owned(),
            now_ms: millis(time).ok_or(ServerError::Answer)?,
            nonce: list(found).into_iter().filter_map(entry).map(|entry| entry.position.nonce).next(),
            fields: self::fields(fields),
        })
    }

    /// Removes registrations.
    pub(super) async fn forget(&mut self, names: &[String]) -> Answer<()> {
        self.server.forget(&mut self.connection, names, WRITE_TIMEOUT).await
    }

    /// Says that this node has left.
    pub(super) async fn leave(&mut self, name: &str) -> Answer<()> {
        let mut pipe = commands();
        pipe.cmd("TIME");
        let now_ms = self.connection.ask(&pipe, WRITE_TIMEOUT).await?.into_iter().next().and_then(millis);
        let departure = registry::departure(now_ms.ok_or(ServerError::Answer)?);
        let mut pipe = commands();
        pipe.cmd("HSET").arg(&self.server.nodes).arg(name).arg(departure);
        self.connection.ask(&pipe, WRITE_TIMEOUT).await.map(drop)
    }
}

const KINDS: [(MessageKind, &str); 8] = [
    (MessageKind::Url, "url"),
    (MessageKind::Key, "key"),
    (MessageKind::Tag, "tag"),
    (MessageKind::Group, "group"),
    (MessageKind::Path, "path"),
    (MessageKind::Pattern, "pattern"),
    (MessageKind::KeyPrefix, "key-prefix"),
    (MessageKind::Everything, "everything"),
];

fn kind_name(kind: MessageKind) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name)
}

fn strength_name(strength: Strength) -> &'static str {
    match strength {
        Strength::Hard => "hard",
        Strength::Soft => "soft",
        Strength::Unproven => "unproven",
    }
}

/// What an entry says. What this version does not know may be any purge.
fn message(kind: &str, argument: &[u8], strength: &str) -> Message {
    let kind = KINDS.iter().find(|(_, name)| *name == kind).map(|(kind, _)| *kind);
    let strengths = [Strength::Hard, Strength::Soft, Strength::Unproven];
    let strength = strengths.into_iter().find(|known| strength_name(*known) == strength);
    match (kind, strength) {
        (Some(kind), Some(strength)) => Message::new(kind, argument, strength),
        _ => Message::doubt(),
    }
}

/// Why this server will take no registration.
fn lasting(refusals: &[Option<String>]) -> Option<&str> {
    let is_lasting = |why: &&str| LASTING.iter().any(|code| why.starts_with(code));
    refusals.iter().flatten().map(String::as_str).find(is_lasting)
}

/// What `XINFO STREAM` says.
struct StreamInfo(Fields);

impl StreamInfo {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The largest id that was deleted one by one.
    fn deleted(&self) -> EntryId {
        self.get("max-deleted-entry-id").and_then(parse_id).unwrap_or_default()
    }

    fn extent(&self) -> Option<Extent> {
        let number = |name| self.get(name)?.parse().ok();
        let (added, length) = (number("entries-added")?, number("length")?);
        Some(Extent { added, length, last: self.get("last-generated-id").and_then(parse_id)? })
    }
}

/// Keys and values, as RESP2 and RESP3 have them.
fn pairs(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Map(pairs) => pairs,
        value => {
            let mut values = list(value).into_iter();
            std::iter::from_fn(|| values.next().zip(values.next())).collect()
        }
    }
}

fn fields(value: Value) -> Fields {
    pairs(value).into_iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

fn field(value: Value, name: &str) -> Option<String> {
    let is_it = |key: Value| text(key).is_some_and(|key| key == name);
    pairs(value).into_iter().find_map(|(key, value)| if is_it(key) { text(value) } else { None })
}

/// The entries of the only stream of an `XREAD`.
fn stream_entries(value: Value) -> Vec<Entry<Message>> {
    let streams = match value {
        Value::Map(streams) => streams.into_iter().map(|(_, entries)| entries).collect(),
        value => {
            list(value).into_iter().filter_map(|stream| list(stream).into_iter().nth(1)).collect::<Vec<_>>()
        }
    };
    streams.into_iter().flat_map(list).filter_map(entry).collect()
}

/// An entry. What cannot be read in it may mean any purge, and one without a nonce is of another program.
fn entry(value: Value) -> Option<Entry<Message>> {
    let mut parts = list(value).into_iter();
    let id = parse_id(&text(parts.next()?)?)?;
    let fields = parts.next().map(pairs).unwrap_or_default();
    let fields: Vec<_> =
        fields.into_iter().filter_map(|(name, value)| text(name).zip(bytes(value))).collect();
    let value = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
    let text = |name| value(name).and_then(|value| str::from_utf8(value).ok()).unwrap_or_default();
    let foreign = id.millis ^ id.number.rotate_left(32);
    let position = Position { id, nonce: text("n").parse().unwrap_or(foreign) };
    let purge = (text("k") != "mark").then(|| message(text("k"), value("a").unwrap_or_default(), text("s")));
    Some(Entry { position, purge })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::connection::Location;

    /// What is logged before the others can see the node is read, and what is anchored behind the read was so before.
    #[test]
    fn a_node_registers_before_it_reads_and_looks_for_its_anchor_after_that() {
        let address = Location::new("redis://127.0.0.1:1").resolve().unwrap();
        let server = Server::new(address, "test");
        let registering = Registering { name: "n1", run: "r", when_cut_off: WhenCutOff::ServeOn };
        let from = Some(Position { id: EntryId { millis: 5, number: 1 }, nonce: 7 });
        for (may_wait, value, wait) in [(false, "r - 9", ""), (true, "r 5-1 9", "BLOCK 1000 ")] {
            let read = Read { from, may_wait, asked_at: Instant::now() };
            let pipe = server.reading(read, registering, 9, true);
            let words = |cmd: &redis::Cmd| {
                let words = cmd.args_iter().map(|arg| match arg {
                    redis::Arg::Simple(word) => str::from_utf8(word).unwrap().to_owned(),
                    other => panic!("{other:?}"),
                });
                words.collect::<Vec<_>>().join(" ")
            };
            let expected = [
                "TIME".to_owned(),
                format!("HSET {{test}}:1:nodes n1 {value}"),
                "HSETNX {test}:1:nodes born:r 9".to_owned(),
                format!("XREAD {wait}COUNT 512 STREAMS {{test}}:1:purges 5-1"),
                "XRANGE {test}:1:purges 5-1 5-1".to_owned(),
                "XINFO STREAM {test}:1:purges".to_owned(),
                "HGETALL {test}:1:nodes".to_owned(),
            ];
            assert_eq!(pipe.cmd_iter().map(words).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_is_not_known_may_be_any_purge() {
        for (kind, _) in KINDS {
            for strength in [Strength::Hard, Strength::Soft, Strength::Unproven] {
                let read = message(kind_name(kind), b"x", strength_name(strength));
                assert_eq!(read, Message::new(kind, b"x", strength));
            }
        }
        assert_eq!(message("planet", b"x", "hard"), Message::doubt());
        assert_eq!(message("tag", b"x", "gentle"), Message::doubt());
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn what_a_stream_is_said_to_have_is_read_as_far_as_it_is_said() {
        let field = |name, value| [bulk(name), value];
        let said = |fields: Vec<[Value; 2]>| StreamInfo(super::fields(Value::Array(fields.concat())));
        let (added, length) = (field("entries-added", Value::Int(9)), field("length", Value::Int(4)));
        let last = field("last-generated-id", bulk("5-1"));
        let deleted = field("max-deleted-entry-id", bulk("3-0"));
        let first = field("first-entry", Value::Array(vec![bulk("2-0"), Value::Array(vec![])]));
        let all = said(vec![length.clone(), first, last.clone(), deleted, added.clone()]);
        let expected = Extent { added: 9, length: 4, last: EntryId { millis: 5, number: 1 } };
        assert_eq!((all.extent(), all.deleted()), (Some(expected), EntryId { millis: 3, number: 0 }));
        let some = said(vec![added, length]);
        assert_eq!((some.extent(), some.deleted()), (None, EntryId::default()));
        assert_eq!(said(vec![last]).extent(), None);
    }

    #[test]
    fn entries_are_read_in_both_protocols() {
        let fields = ["k", "tag", "a", "news", "s", "soft", "n", "7", "w", "n1"].map(bulk).to_vec();
        let one = || Value::Array(vec![bulk("5-1"), Value::Array(fields.clone())]);
        let resp2 = Value::Array(vec![Value::Array(vec![bulk("log"), Value::Array(vec![one()])])]);
        let resp3 = Value::Map(vec![(bulk("log"), Value::Array(vec![one()]))]);
        for value in [resp2, resp3] {
            let entries = stream_entries(value);
            let [Entry { position, purge }] = &entries[..] else { panic!("{entries:?}") };
            assert_eq!(*position, Position { id: EntryId { millis: 5, number: 1 }, nonce: 7 });
            assert_eq!(*purge, Some(Message::new(MessageKind::Tag, b"news", Strength::Soft)));
        }
        assert!(stream_entries(Value::Nil).is_empty());
        let mark = Value::Array(vec![bulk("5-1"), Value::Array(["k", "mark", "n", "7"].map(bulk).to_vec())]);
        assert!(entry(mark).unwrap().purge.is_none());
        // Of another program.
        let foreign = Value::Array(vec![bulk("5-1"), Value::Array(["x", "y"].map(bulk).to_vec())]);
        assert_eq!(entry(foreign).unwrap().purge, Some(Message::doubt()));
    }
}
