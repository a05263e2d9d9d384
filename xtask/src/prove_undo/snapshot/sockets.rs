//! Sockets that wait for others: listening ones of TCP and Unix, bound ones of UDP, and those that see raw packets.

use std::fs;

use super::{Class, Facts, Place, program};

/// The class.
pub(super) struct Sockets;

impl Class for Sockets {
    fn name(&self) -> &'static str {
        "sockets"
    }

    fn look(&self, _: &Place) -> Result<Facts, String> {
        let mut lines = Vec::new();
        for (file, wanted) in [
            ("tcp", tcp as fn(&[&str]) -> Option<String>),
            ("tcp6", tcp),
            ("udp", local),
            ("udp6", local),
            ("raw", local),
            ("raw6", local),
            ("packet", packet),
            ("unix", unix),
        ] {
            // A kernel without this kind of sockets has no file of them.
            let text = fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
            let sockets = text.lines().skip(1).filter_map(|line| wanted(&line.split_whitespace().collect::<Vec<_>>()));
            lines.extend(sockets.map(|socket| format!("{file} {socket}")));
        }
        Ok(program::counted(lines))
    }
}

/// `sl local_address rem_address st …`, in hexadecimal; state 0A listens.
fn tcp(fields: &[&str]) -> Option<String> {
    (fields.get(3) == Some(&"0A")).then(|| format!("listens on {}", fields.get(1).copied().unwrap_or_default()))
}

fn local(fields: &[&str]) -> Option<String> {
    Some(format!("bound to {}", fields.get(1)?))
}

/// `sk RefCnt Type Proto Iface …`
fn packet(fields: &[&str]) -> Option<String> {
    Some(format!("type {} of protocol {} on interface {}", fields.get(2)?, fields.get(3)?, fields.get(4)?))
}

/// `Num RefCount Protocol Flags Type St Inode Path`; the flag 00010000 says that it listens.
fn unix(fields: &[&str]) -> Option<String> {
    (fields.get(3) == Some(&"00010000")).then(|| format!("listens on {}", fields.get(7).copied().unwrap_or("no path")))
}
