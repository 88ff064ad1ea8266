//! A handler whose failure is noted, for the test that watches its server.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use futures::FutureExt;

use super::HandlerFuture;
use crate::foreign::{Noted, attempt, discard};
use crate::instance::Instance;
use crate::reject::Reason;
use crate::runtime::Label;
use crate::upgrade::PendingUpgrade;

/// Calls a handler. Its error or its panic goes on as it would, and is noted if a test watches the server.
pub(super) fn watched(
    pending: &Arc<PendingUpgrade>,
    label: Label,
    call: impl FnOnce() -> HandlerFuture,
) -> HandlerFuture {
    let Some(instance) = watching(pending) else { return call() };
    let (instance, route, pending) = (Arc::clone(instance), label.to_string(), Arc::clone(pending));
    // The closure itself runs in this call.
    let handler = catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|payload| panicked(&instance, &route, payload));
    Box::pin(async move {
        let outcome = AssertUnwindSafe(handler).catch_unwind().await;
        let result = outcome.unwrap_or_else(|payload| panicked(&instance, &route, payload));
        let is_open = pending.has_open_connection();
        if let Some(error) = result.as_ref().err().filter(|error| error.is_failure(is_open)) {
            // `Display` of an error, and of its causes, is the application's, too.
            let text = attempt(|| format!("{error:#}"));
            instance.failures.note_error(&route, text.unwrap_or_default());
        }
        result
    })
}

/// Notes that a value of a handler cannot be made a response.
pub(super) fn note_answer(pending: &PendingUpgrade, label: Label, reason: &Reason) {
    if let (Some(instance), Reason::Failed(text)) = (watching(pending), reason) {
        instance.failures.note_error(&label.to_string(), text.to_string());
    }
}

fn watching(pending: &PendingUpgrade) -> Option<&Arc<Instance>> {
    pending.instance().filter(|instance| instance.failures.is_watched())
}

/// Notes a panic, and goes on with it.
fn panicked(instance: &Instance, route: &str, payload: Box<dyn Any + Send>) -> ! {
    instance.failures.note_panic(route, &*payload);
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    discard(payload);
    resume_unwind(Box::new(Noted(text)))
}
