//! A user without rights injects through the host's launcher what its policy allows, and nothing else.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};
use toprope_os::process::{ProcessInfo, Signal, State};
use toprope_tests::{Done, Toprope, eventually, is_root, skip};

const NOBODY: &[&str] = &["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--"];

/// A launcher of root's, and a process of root's that it lets a user pause.
struct Host {
    /// Root's.
    root: Toprope,
    /// The user's.
    user: Toprope,
    launcher: Child,
    target: Child,
}

impl Host {
    fn start(policy: &str) -> Self {
        let root = Toprope::new();
        let target = Command::new("sleep").arg("600").spawn().expect("it is installed");
        root.write("policy.yaml", policy.replace("{target}", &target.id().to_string()));
        std::fs::set_permissions(root.path("policy.yaml"), std::fs::Permissions::from_mode(0o644)).expect("ours");
        let user = Toprope::new();
        std::fs::create_dir_all(user.home()).expect("ours");
        chown(user.home(), Some(65534), Some(65534)).expect("root may");
        let mut command = root.command(&["launcher", "--listen", &socket(&user), "--policy"]);
        command.arg(root.path("policy.yaml"));
        let launcher = command.stdout(Stdio::null()).spawn().expect("it is built");
        let host = Self { root, user, launcher, target };
        eventually("the launcher listens", || UnixStream::connect(socket(&host.user)).is_ok());
        host
    }

    /// As nobody.
    fn run(&self, args: &[&str]) -> Done {
        self.user.spawn(self.command(args)).wait()
    }

    fn command(&self, args: &[&str]) -> Command {
        let launcher = format!("--launcher={}", socket(&self.user));
        self.user.wrapped(NOBODY, &[args, &[launcher.as_str()]].concat())
    }

    fn pause(&self, time: &str) -> Vec<String> {
        let target = format!("target.pid={}", self.target.id());
        [
            "inject",
            "process-pause",
            &target,
            "--for",
            time,
            "--plain",
            "--probe",
            "{command: {run: ['true'], interval: 100ms}}",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn is_paused(&self) -> bool {
        let state = ProcessInfo::of(self.target.id()).expect("it lives").state;
        matches!(state, State::Stopped | State::Traced)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in [&mut self.launcher, &mut self.target] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn socket(user: &Toprope) -> String {
    user.path("launcher.sock").display().to_string()
}

const POLICY: &str = "\
apiVersion: toprope.dev/v1alpha1
kind: Policy
metadata: {name: test}
spec:
  allow:
  - {users: [nobody], faults: [process-pause], longest: 60s, with: {target.pid: ['{target}']}}
";

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn a_user_injects_what_the_policy_allows_and_nothing_else() {
    if !is_root() {
        return skip("a launcher is root's");
    }
    let host = Host::start(POLICY);
    // Without the launcher root's process is none of theirs.
    let pause = host.pause("60s");
    let refused = host.user.spawn(host.user.wrapped(NOBODY, &strs(&pause))).wait();
    assert_eq!(refused.code, Some(2), "{refused}");

    let mut running = host.user.spawn(host.command(&strs(&pause)));
    running.until_in_force();
    assert!(host.is_paused(), "as seen from outside");
    running.signal(Signal::INT);
    running.wait();
    assert!(!host.is_paused(), "the end of the run is the end of the pause");

    let mut running = host.user.spawn(host.command(&strs(&pause)));
    running.until_in_force();
    running.signal(Signal::KILL);
    running.wait();
    eventually("the fault ends with its run", || !host.is_paused());

    let kill = format!("inject process-kill target.pid={} --probe http://127.0.0.1:9/", host.target.id());
    let kill: Vec<String> = kill.split(' ').map(str::to_owned).collect();
    let another = host.pause("1s").into_iter().map(|arg| arg.replace("target.pid=", "target.pid=1")).collect();
    for (args, why) in [
        (host.pause("61s"), "it allows 1m at most"),
        (another, "it allows target.pid"),
        (kill, "it allows nobody process-pause"),
    ] {
        let refused = host.run(&strs(&args));
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.stderr.contains("does not let nobody inject") && refused.stderr.contains(why), "{refused}");
        assert!(!host.is_paused());
    }
    host.root.run(&["residue", "--own"]).expect(0);
}

#[test]
fn a_policy_that_others_could_have_written_allows_nothing() {
    if !is_root() {
        return skip("a launcher is root's");
    }
    let host = Host::start(POLICY);
    let policy = host.root.path("policy.yaml");
    std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(0o666)).expect("ours");
    let refused = host.run(&strs(&host.pause("1s")));
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("writable by nobody else"), "{refused}");
    let elsewhere = host.root.path("elsewhere");
    std::fs::rename(&policy, &elsewhere).expect("ours");
    std::os::unix::fs::symlink(&elsewhere, &policy).expect("ours");
    host.run(&strs(&host.pause("1s"))).expect(2);
    std::fs::remove_file(&policy).expect("ours");
    std::fs::write(&policy, "kind: Policy\nspec: {allow: [{user: [nobody]}]}\n").expect("ours");
    let refused = host.run(&strs(&host.pause("1s"))).expect(2);
    assert!(refused.stderr.contains("toprope validate"), "{refused}");
}

/// Somebody who speaks to the launcher without being a run.
struct Hostile {
    launcher: UnixStream,
}

impl Hostile {
    fn new(host: &Host) -> Self {
        Self { launcher: UnixStream::connect(socket(&host.user)).expect("it listens") }
    }

    /// What an injector answers to a message, and to a second one.
    fn ask(&mut self, messages: &[Json]) -> Vec<Json> {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        toprope_os::fdpass::send(&self.launcher, b"i", &[theirs.as_fd()]).expect("it listens");
        drop(theirs);
        self.launcher.write_all(&[0]).expect("no kind of fault");
        let mut number = [0; 4];
        std::io::Read::read_exact(&mut self.launcher, &mut number).expect("an answer");
        // Not everything is answered.
        ours.set_read_timeout(Some(std::time::Duration::from_secs(3))).expect("a socket");
        let mut answers = BufReader::new(ours.try_clone().expect("a socket"));
        let mut said = Vec::new();
        for message in messages {
            let mut line = message.to_string();
            line.push('\n');
            if (&ours).write_all(line.as_bytes()).is_err() {
                break;
            }
            let mut answer = String::new();
            if answers.read_line(&mut answer).unwrap_or(0) > 0 {
                said.push(serde_json::from_str(&answer).expect("JSON"));
            }
        }
        said
    }
}

#[test]
fn hostile_messages_get_nothing() {
    if !is_root() {
        return skip("a launcher is root's");
    }
    let policy =
        POLICY.replace("process-pause]", "process-pause, command]").replace(", with: {target.pid: ['{target}']}", "");
    // Who calls is root here: the policy knows nobody of that name but what it says.
    let host = Host::start(&policy.replace("[nobody]", "[root]"));
    let at = host.root.directory().display().to_string();
    let plan = |fault: &str, params: Json| {
        json!({"plan": {"fault": fault, "params": params, "seed": 1, "for_ms": 1000, "limits": {"targets": null, "percent": null},
            "journal": "/proc/self/cwd", "attended": false,
            "host": {"own": [], "directory": at, "invoking_user": null, "services": [], "pass_throughs": []}}})
    };
    let pause = plan("process-pause", json!({"target": {"pid": host.target.id()}}));
    let mut hostile = Hostile::new(&host);
    for run in ["../../etc/cron.d/x", "", "a/b", "a b"] {
        let apply = json!({"apply": {"run": run, "injection": 0, "user": "root", "drain_ms": 0, "changes": []}});
        let said = hostile.ask(&[pause.clone(), apply]);
        assert!(said[1].to_string().contains("is no name of a run"), "{run:?}: {said:?}");
    }
    // A fault that is not allowed, and one that was not planned.
    let said = hostile.ask(&[plan("cpu-stress", json!({"load": "5%"}))]);
    assert!(said[0].to_string().contains("does not let root inject this cpu-stress"), "{said:?}");
    let said = hostile.ask(&[
        json!({"apply": {"run": "a", "injection": 0, "user": "root", "drain_ms": 0, "changes": []}}),
        json!("logged"),
    ]);
    assert!(said.iter().all(|answer| !answer.to_string().contains("applied")), "{said:?}");
    // Records elsewhere, and those of others.
    let record = host.root.write("evil.jsonl", "{}");
    let undo = json!({"undo": {"journal": at, "record": record, "host": {"own": [], "directory": at}}});
    let said = hostile.ask(&[undo]);
    assert!(said.iter().all(|answer| answer["undone"]["clean"] != json!(true)), "{said:?}");
    // What is no message at all, and what is no socket.
    hostile.ask(&[json!(["nonsense"]), json!(null)]);
    let file = std::fs::File::open("/dev/null").expect("it is there");
    toprope_os::fdpass::send(&hostile.launcher, b"i", &[file.as_fd()]).expect("it listens");
    // It still serves.
    let said = Hostile::new(&host).ask(&[pause]);
    assert!(said[0].get("planned").is_some(), "{said:?}");
}
