//! Whose failure it was: the system's, which is evidence, or our own, which is none.

use std::error::Error;
use std::io;

use rustix::io::Errno;

use super::Answer;

/// What the kernel says when this host, not the other side, has too little of something.
const OURS: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL];

/// The answer for an error: bad, unless this host has run out of descriptors, memory or ports.
pub(super) fn failed(what: &str, error: &(dyn Error + 'static)) -> Answer {
    let why = format!("{what}: {}", root(error));
    let ours = causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
        .any(|code| OURS.iter().any(|errno| errno.raw_os_error() == code));
    match ours {
        true => Answer::broken(format!("{why} (on this host, not on the other side)")),
        false => Answer { unanswered: true, ..Answer::bad(why) },
    }
}

/// What is at the bottom of an error, which alone says what happened: libraries wrap it in what they were doing.
pub(super) fn root(error: &(dyn Error + 'static)) -> String {
    let root = causes(error).last().expect("an error is its own first cause").to_string();
    if root.contains("CaUsedAsEndEntity") {
        // The library's own word for it.
        return "the server shows the certificate of an authority (CA:TRUE), which is none for a server: give it one that \
                this authority has signed, or accept any with `tls: {insecure: true}`"
            .into();
    }
    let mut shown: String = root.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    // As it follows a colon.
    if let Some(first) = shown.chars().next().filter(char::is_ascii_uppercase)
        && shown.chars().nth(1).is_some_and(|c| c.is_ascii_lowercase() || c == ' ')
    {
        shown.replace_range(..1, &first.to_ascii_lowercase().to_string());
    }
    shown
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| {
        // The source of an `io::Error` that wraps another error is that one's source: it would be passed over.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => (*error).source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_host_lacks_is_our_own_failure() {
        let refused = io::Error::from_raw_os_error(Errno::CONNREFUSED.raw_os_error());
        let answer = failed("cannot connect", &refused);
        assert_eq!(answer.bad.as_deref(), Some("cannot connect: connection refused (os error 111)"));
        assert!(answer.unanswered && !answer.broken);
        let exhausted = io::Error::other(io::Error::from_raw_os_error(Errno::MFILE.raw_os_error()));
        assert!(failed("cannot connect", &exhausted).broken);
    }
}
