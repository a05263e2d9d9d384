//! Faults that leak, one for each class of state: what shows that the harness sees.
//!
//! Each is a real `command` fault whose undo does nothing, so that it goes all the way that a buggy fault would go.

use super::super::sandbox::{DISK, Inside, WORK, XTASK};
use super::{Mechanism, Scenario, Stage, never, nothing, target};

/// A fault that leaves something.
pub(crate) struct Leak {
    /// The class in which it must be found.
    pub(crate) class: &'static str,
    /// What tells it from others of the class.
    pub(crate) name: &'static str,
    /// What its `apply` runs.
    shell: &'static str,
    /// What of the machine it needs: a program.
    pub(crate) needs: &'static str,
}

/// At least one for each class that a namespace can hold. The clock has none: it is shown by a test.
pub(crate) const LEAKS: &[Leak] = &[
    Leak { class: "addresses", name: "address", shell: "ip address add 10.9.9.9/32 dev lo", needs: "ip" },
    Leak { class: "bpf", name: "link", shell: "setsid $XTASK proof target hold-bpf & sleep 0.5", needs: "setsid" },
    Leak { class: "cgroups", name: "group", shell: "mkdir /sys/fs/cgroup/freezer/left", needs: "mkdir" },
    Leak {
        class: "cgroups",
        name: "frozen",
        shell: "echo FROZEN >/sys/fs/cgroup/freezer/service/freezer.state",
        needs: "sh",
    },
    Leak {
        class: "cgroups",
        name: "limit",
        shell: "mkdir -p /sys/fs/cgroup/pids/left && echo 7 >/sys/fs/cgroup/pids/left/pids.max",
        needs: "sh",
    },
    Leak {
        class: "cgroups",
        name: "moved",
        shell: "echo $TARGET >/sys/fs/cgroup/freezer/service/cgroup.procs",
        needs: "sh",
    },
    Leak { class: "files", name: "file", shell: "touch $WORK/left", needs: "touch" },
    Leak { class: "files", name: "hosts", shell: "echo 10.9.9.9 db >>/etc/hosts", needs: "sh" },
    Leak { class: "files", name: "shared-memory", shell: "echo x >/dev/shm/left", needs: "sh" },
    Leak {
        class: "iptables",
        name: "rule",
        shell: "iptables-legacy -A OUTPUT -p tcp --dport 9 -j DROP",
        needs: "iptables-legacy",
    },
    Leak { class: "links", name: "veth", shell: "ip link add left0 type veth peer name left1", needs: "ip" },
    Leak { class: "links", name: "mtu", shell: "ip link set lo mtu 1400", needs: "ip" },
    Leak { class: "mounts", name: "tmpfs", shell: "mount -t tmpfs left /mnt", needs: "mount" },
    Leak {
        class: "nftables",
        name: "rule",
        shell: "nft add table inet left && nft add chain inet left out",
        needs: "nft",
    },
    Leak { class: "processes", name: "stopped", shell: "kill -STOP $TARGET", needs: "sh" },
    Leak { class: "processes", name: "stray", shell: "setsid sleep 600 &", needs: "setsid" },
    Leak { class: "processes", name: "killed", shell: "kill -KILL $TARGET", needs: "sh" },
    Leak {
        class: "qdiscs",
        name: "tbf",
        shell: "tc qdisc add dev lo root tbf rate 1mbit burst 10k latency 10ms",
        needs: "tc",
    },
    Leak { class: "qdiscs", name: "ingress", shell: "tc qdisc add dev lo clsact", needs: "tc" },
    Leak { class: "routes", name: "blackhole", shell: "ip route add blackhole 10.9.9.0/24", needs: "ip" },
    Leak { class: "rules", name: "rule", shell: "ip rule add pref 99 to 10.9.9.9 table 99", needs: "ip" },
    Leak {
        class: "sockets",
        name: "listener",
        shell: "setsid $XTASK proof target serve 127.0.0.1:7009 & sleep 0.3",
        needs: "setsid",
    },
    Leak { class: "space", name: "file", shell: "head -c 1000000 /dev/zero >$DISK/left", needs: "head" },
    Leak {
        class: "space",
        name: "unnamed",
        shell: "setsid $XTASK proof target hold-space $DISK & sleep 0.5",
        needs: "setsid",
    },
    Leak { class: "sysctls", name: "forwarding", shell: "echo 1 >/proc/sys/net/ipv4/ip_forward", needs: "sh" },
    Leak { class: "sysctls", name: "hostname", shell: "echo left >/proc/sys/kernel/hostname", needs: "sh" },
];

impl Leak {
    /// Its name: the class, and what tells it from others there.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.class, self.name)
    }

    /// The leak as a scenario, but for its stage.
    pub(crate) const SCENARIO: Scenario = Scenario {
        fault: "command",
        variant: "leak",
        mechanism: Mechanism::JournalProgram,
        stage: |_| Err("a leak is staged by itself".into()),
        leaves: nothing,
        host_pids: false,
        missing: never,
    };

    /// Starts its target, and says what leaks.
    ///
    /// # Errors
    /// The target cannot be started.
    pub(crate) fn stage(&self, inside: &Inside) -> Result<Stage, String> {
        let target = target(inside, &["idle"])?;
        let pid = target.inside.to_string();
        let known = [("$XTASK", XTASK), ("$WORK", WORK), ("$DISK", DISK), ("$TARGET", &pid)];
        let shell = known.iter().fold(self.shell.to_owned(), |shell, (name, value)| shell.replace(name, value));
        // It tells by a file in a directory that does not count whether it was applied.
        let said = "/run/proof/out/leaked";
        let method = format!(
            "command: {{apply: [sh, -c, '( {shell} ) >/dev/null 2>{said}.error </dev/null && touch {said}'], \
             check: [sh, -c, 'exit 1'], undo: ['true'], for: {{for}}}}"
        );
        Ok(Stage::new(method, vec![target], || false))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::snapshot::CLASSES;
    use super::*;

    #[test]
    fn every_class_has_a_leak_and_every_leak_a_class() {
        let classes: Vec<&str> = CLASSES.iter().map(|class| class.name()).collect();
        for class in &classes {
            let shown = LEAKS.iter().any(|leak| leak.class == *class) || *class == "clock";
            assert!(shown, "nothing shows that a leak of `{class}` is seen");
        }
        assert!(LEAKS.iter().all(|leak| classes.contains(&leak.class)));
    }
}
