//! Who listens on which TCP port, from `/proc/net/tcp` and the descriptors of the processes.

use std::collections::{HashMap, HashSet};
use std::{fs, io};

use toprope_os::process::ProcessInfo;

use crate::fault::FaultError;

/// The listening TCP sockets of this network namespace.
pub(super) struct Listeners {
    /// Sockets by port, each by its inode.
    ports: HashMap<u16, HashSet<u64>>,
    /// The processes that have each socket open.
    holders: HashMap<u64, HashSet<u32>>,
}

impl Listeners {
    pub(super) fn read() -> io::Result<Self> {
        let mut ports: HashMap<u16, HashSet<u64>> = HashMap::new();
        for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
            match fs::read_to_string(file) {
                Ok(table) => {
                    for (port, inode) in table.lines().filter_map(listening) {
                        ports.entry(port).or_default().insert(inode);
                    }
                }
                // A kernel without IPv6 has no such table.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let wanted: HashSet<u64> = ports.values().flatten().copied().collect();
        let mut holders: HashMap<u64, HashSet<u32>> = HashMap::new();
        let pids = fs::read_dir("/proc")?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids {
            // A process that has ended meanwhile holds nothing; one of another user may be closed to us.
            let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for link in descriptors.filter_map(|d| fs::read_link(d.ok()?.path()).ok()) {
                let inode = link.to_str().and_then(|l| l.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
                if let Some(inode) = inode.filter(|i| wanted.contains(i)) {
                    holders.entry(inode).or_default().insert(pid);
                }
            }
        }
        Ok(Self { ports, holders })
    }

    /// Whether a process listens on a port.
    pub(super) fn is_of(&self, process: &ProcessInfo, port: u16) -> bool {
        let sockets = self.ports.get(&port);
        sockets
            .is_some_and(|all| all.iter().any(|s| self.holders.get(s).is_some_and(|h| h.contains(&process.id.pid()))))
    }

    /// Refuses a port on which somebody listens whom we may not see.
    pub(super) fn must_be_seen(&self, port: u16) -> Result<(), FaultError> {
        match self.ports.get(&port) {
            Some(sockets) if !sockets.iter().any(|s| self.holders.contains_key(s)) => {
                let message = format!("somebody listens on port {port}, and it cannot be seen which process does");
                Err(FaultError::new(message)
                    .help("it is another user's, or in another pid namespace: run as root, or select it by `process`"))
            }
            _ => Ok(()),
        }
    }
}

/// Port and inode of a line of proc_net(5)'s `tcp` that is in state LISTEN (0A).
fn listening(line: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_are_read() {
        let listens =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 x";
        assert_eq!(listening(listens), Some((8080, 4242)));
        assert_eq!(listening(&listens.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening("  sl  local_address rem_address   st tx_queue"), None);
    }
}
