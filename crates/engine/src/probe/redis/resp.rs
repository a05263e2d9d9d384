//! Redis's protocol as a client needs it: RESP2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
//!
//! Written here because a probe reads within bounds, and needs neither a task for its connection nor the two commands
//! by which client libraries introduce themselves.

use std::io;

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::address::Stream;

/// The longest reply.
const MAX_REPLY: usize = 1 << 20;
/// How deep lists may be nested.
const MAX_DEPTH: usize = 8;

/// What a server answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    Text(String),
    Error(String),
    Integer(i64),
    Nil,
    List(Vec<Reply>),
}

impl Reply {
    /// As it is judged.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Error(text) => text.clone(),
            Self::Integer(n) => n.to_string(),
            Self::Nil => "nil".into(),
            Self::List(_) => self.json().to_string(),
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Text(text) | Self::Error(text) => Json::from(text.as_str()),
            Self::Integer(n) => Json::from(*n),
            Self::Nil => Json::Null,
            Self::List(items) => items.iter().map(Self::json).collect(),
        }
    }

    /// Whether it says that there is nothing.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nil | Self::Integer(0)) || *self == Self::List(vec![])
    }
}

/// What went wrong with a connection.
#[derive(Debug)]
pub(super) enum Trouble {
    Io(io::Error),
    Garbage(&'static str),
    TooLong,
}

/// A connection.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Sends a command and waits for its reply.
    pub(super) async fn ask(&mut self, words: &[String]) -> Result<Reply, Trouble> {
        self.stream.write_all(&encode(words)).await.map_err(Trouble::Io)?;
        self.reply().await
    }

    /// Sends several commands at once and waits for all replies.
    pub(super) async fn ask_all(&mut self, commands: &[Vec<String>]) -> Result<Vec<Reply>, Trouble> {
        let sent: Vec<u8> = commands.iter().flat_map(|words| encode(words)).collect();
        self.stream.write_all(&sent).await.map_err(Trouble::Io)?;
        let mut replies = Vec::new();
        for _ in commands {
            replies.push(self.reply().await?);
        }
        Ok(replies)
    }

    /// Whether nothing came that was not asked for: then the next reply is that to the next command.
    pub(super) fn is_idle(&self) -> bool {
        self.read.is_empty()
    }

    async fn reply(&mut self) -> Result<Reply, Trouble> {
        loop {
            if let Some((reply, length)) = decode(&self.read, 0)? {
                self.read.drain(..length);
                return Ok(reply);
            }
            if self.read.len() > MAX_REPLY {
                return Err(Trouble::TooLong);
            }
            if self.stream.read_buf(&mut self.read).await.map_err(Trouble::Io)? == 0 {
                return Err(Trouble::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has closed it")));
            }
        }
    }
}

fn encode(words: &[String]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The reply at the beginning of what was read, and its length; `None` if it is not all there.
fn decode(read: &[u8], depth: usize) -> Result<Option<(Reply, usize)>, Trouble> {
    let Some((kind, rest)) = read.split_first() else { return Ok(None) };
    if !b"+-:$*".contains(kind) {
        return Err(Trouble::Garbage("it does not begin as a reply"));
    }
    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = std::str::from_utf8(&rest[..end]).map_err(|_| Trouble::Garbage("a line is not text"))?;
    let number = || line.parse::<i64>().map_err(|_| Trouble::Garbage("a length is no number"));
    // The kind, the line and its end.
    let used = end + 3;
    let reply = match kind {
        b'+' => Reply::Text(line.to_owned()),
        b'-' => Reply::Error(line.to_owned()),
        b':' => Reply::Integer(number()?),
        b'$' => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(Some((Reply::Nil, used))) };
            if length > MAX_REPLY {
                return Err(Trouble::TooLong);
            }
            let Some(bytes) = read.get(used..used + length) else { return Ok(None) };
            let Some(ending) = read.get(used + length..used + length + 2) else { return Ok(None) };
            if ending != b"\r\n" {
                return Err(Trouble::Garbage("a text is longer than it says"));
            }
            return Ok(Some((Reply::Text(String::from_utf8_lossy(bytes).into_owned()), used + length + 2)));
        }
        _ => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(Some((Reply::Nil, used))) };
            if depth >= MAX_DEPTH {
                return Err(Trouble::Garbage("lists are nested too deep"));
            }
            // An item has four bytes at least.
            if length > MAX_REPLY / 4 {
                return Err(Trouble::TooLong);
            }
            let mut items = Vec::new();
            let mut used = used;
            for _ in 0..length {
                let Some((item, length)) = decode(&read[used..], depth + 1)? else { return Ok(None) };
                items.push(item);
                used += length;
            }
            return Ok(Some((Reply::List(items), used)));
        }
    };
    Ok(Some((reply, used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Reply {
        // However it is cut into pieces, the reply is there with its last byte and not before.
        for cut in 0..text.len() {
            assert!(decode(&text.as_bytes()[..cut], 0).unwrap().is_none(), "{cut} of {text:?}");
        }
        let (reply, length) = decode(format!("{text}+NEXT\r\n").as_bytes(), 0).unwrap().unwrap();
        assert_eq!(length, text.len());
        reply
    }

    #[test]
    fn replies_are_read_from_any_pieces() {
        assert_eq!(whole("+PONG\r\n"), Reply::Text("PONG".into()));
        assert_eq!(whole("-ERR no\r\n"), Reply::Error("ERR no".into()));
        assert_eq!(whole(":-7\r\n"), Reply::Integer(-7));
        assert_eq!(whole("$4\r\na\r\nb\r\n"), Reply::Text("a\r\nb".into()));
        assert_eq!(whole("$-1\r\n"), Reply::Nil);
        assert_eq!(whole("*-1\r\n"), Reply::Nil);
        let list = whole("*3\r\n$1\r\na\r\n:2\r\n*1\r\n$-1\r\n");
        assert_eq!(list.text(), r#"["a",2,[null]]"#);
        assert!(whole("*0\r\n").is_nothing() && whole(":0\r\n").is_nothing() && !whole("$1\r\n0\r\n").is_nothing());
        assert_eq!(encode(&["SET".into(), "ä".into()]), "*2\r\n$3\r\nSET\r\n$2\r\nä\r\n".as_bytes());
    }

    #[test]
    fn garbage_and_boasts_are_refused_at_once() {
        for garbage in ["HTTP/1.1 400\r\n", ":x\r\n", "$x\r\n", "$1\r\nabc\r\n", &"*1\r\n".repeat(100)] {
            assert!(matches!(decode(garbage.as_bytes(), 0), Err(Trouble::Garbage(_))), "{garbage:?}");
        }
        for boast in ["$99999999999\r\n", "*99999999\r\n"] {
            assert!(matches!(decode(boast.as_bytes(), 0), Err(Trouble::TooLong)), "{boast:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in "[+\\-:$*0-9a\r\n]{0,60}") {
            let _ = decode(bytes.as_bytes(), 0);
        }
    }
}
