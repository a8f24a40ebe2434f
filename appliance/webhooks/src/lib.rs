//! Webhooks: what happens, told to programs elsewhere by HTTP POST.
//!
//! An event is a CloudEvents 1.0 message in structured JSON mode ([`body`]), signed as the Standard Webhooks
//! specification says ([`sign`]). The journal is the queue: each hook has a cursor in the store, which moves on when the
//! receiver has answered with 2xx, so that an event is told at least once, in order, also across restarts and power cuts;
//! a receiver knows one that comes twice by its id. Nothing waits for a receiver, and nothing of it is held in memory.
//!
//! What decides is pure ([`Hook::wants`], [`body`], [`sign`], [`Pause`]); [`Deliverer`] is the shell around it.

mod deliver;
mod hook;
mod message;
mod pause;

pub use deliver::{Deliverer, Report, Standing};
pub use hook::{Hook, HookUrl, UrlError};
pub use message::{BadSecret, Secret, body, event_name, sign};
pub use pause::{Answered, Pause, judge};

/// Where the secret of a hook is among the store's secrets.
pub fn secret_key(hook: &str) -> Vec<u8> {
    deliver::secret_key(hook)
}
