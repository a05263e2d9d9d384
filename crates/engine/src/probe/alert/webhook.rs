//! A receiver of notifications: one for each address, whoever listens there.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use serde_json::Value as Json;
use tokio::task::AbortHandle;

use super::Status;
use super::notice::{Notice, Wanted};
use crate::probe::ProbeError;

/// The longest notification that is read.
const MAX_NOTIFICATION: usize = 1 << 20;
/// So many alerts of one name are told apart by their labels.
const MAX_ALERTS: usize = 10_000;

/// What was notified of one alert.
#[derive(Debug)]
pub(super) struct Inbox {
    wanted: Wanted,
    state: Mutex<InboxState>,
}

#[derive(Debug, Default)]
struct InboxState {
    /// Those that fire, by their labels.
    firing: BTreeSet<String>,
    /// Whether one fired since somebody asked.
    fired: bool,
}

impl Inbox {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self { wanted, state: Mutex::default() }
    }

    /// What is known now, and what was since the last call.
    pub(super) fn status(&self) -> Status {
        let mut state = lock(&self.state);
        let firing = !state.firing.is_empty();
        let fired = std::mem::take(&mut state.fired) || firing;
        Status { firing, fired }
    }

    fn take(&self, notice: &Notice) {
        if !self.wanted.is_of(notice) {
            return;
        }
        let key = format!("{:?}", notice.labels);
        let mut state = lock(&self.state);
        if notice.firing {
            state.fired = true;
            if state.firing.len() < MAX_ALERTS {
                state.firing.insert(key);
            }
        } else {
            state.firing.remove(&key);
        }
    }
}

type Inboxes = Arc<Mutex<Vec<Weak<Inbox>>>>;

/// A receiver; it ends when nobody holds it any more.
#[derive(Debug)]
pub(super) struct Webhook {
    inboxes: Inboxes,
    server: AbortHandle,
}

/// The receivers of this process.
static OPEN: Mutex<Option<HashMap<SocketAddr, Weak<Webhook>>>> = Mutex::new(None);

impl Webhook {
    /// The receiver at an address: the one that is there, or a new one.
    ///
    /// # Errors
    /// That nobody can listen there: the port is taken, the address is not this host's.
    pub(super) fn on(wanted: SocketAddr) -> Result<Arc<Self>, ProbeError> {
        let mut open = lock(&OPEN);
        let open = open.get_or_insert_default();
        open.retain(|_, webhook| webhook.strong_count() > 0);
        if let Some(webhook) = open.get(&wanted).and_then(Weak::upgrade) {
            return Ok(webhook);
        }
        let cannot =
            |e| ProbeError(format!("notifications cannot be listened for on {wanted}: {e}; choose another port"));
        let listener = std::net::TcpListener::bind(wanted).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(cannot)?;
        let inboxes = Inboxes::default();
        let app = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(MAX_NOTIFICATION))
            .with_state(Arc::clone(&inboxes));
        let server = tokio::spawn(async move { axum::serve(listener, app).await }).abort_handle();
        let webhook = Arc::new(Self { inboxes, server });
        if wanted.port() != 0 {
            open.insert(wanted, Arc::downgrade(&webhook));
        }
        Ok(webhook)
    }

    /// Delivers to this one too, as long as somebody holds it.
    pub(super) fn deliver_to(&self, inbox: &Arc<Inbox>) {
        lock(&self.inboxes).push(Arc::downgrade(inbox));
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(inboxes): State<Inboxes>, body: Bytes) -> (StatusCode, &'static str) {
    let Ok(json) = serde_json::from_slice::<Json>(&body) else {
        return (StatusCode::BAD_REQUEST, "a notification is JSON\n");
    };
    let notices = Notice::read_all(&json);
    if notices.is_empty() {
        return (StatusCode::BAD_REQUEST, "there is no alert with a name in it\n");
    }
    for inbox in lock(&inboxes).iter().filter_map(Weak::upgrade) {
        notices.iter().for_each(|notice| inbox.take(notice));
    }
    (StatusCode::OK, "")
}

/// Whoever panicked while holding it has left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
