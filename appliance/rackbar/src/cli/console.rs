//! `rackbar console NODE`: a machine's serial console on this terminal.

use std::io::{IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, Result};
use futures_util::stream::unfold;
use rackbar_control::client::Client;
use ratatui::crossterm::terminal;
use tokio::sync::mpsc;

use super::segment;

/// Ctrl-], as telnet and `virsh console` have it.
const LEAVE: u8 = 0x1d;

/// The terminal hands every key through; put back when dropped.
struct Raw;

impl Raw {
    fn take() -> Result<Self> {
        terminal::enable_raw_mode().context("the terminal cannot hand every key through")?;
        Ok(Self)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The program ends next.
        let _ = terminal::disable_raw_mode();
    }
}

/// Prints what was recorded, as it came: a terminal shows it as the machine's own would have.
pub async fn record(client: &Client, node: &str) -> Result<()> {
    let path = format!("/api/v1/nodes/{}/console/record", segment(node));
    let record = client.get_bytes(&path).await?;
    std::io::stdout().write_all(&record)?;
    Ok(())
}

/// Shows what the machine prints and types what is typed here, until Ctrl-] or the end of the console.
pub async fn look_on(client: &Client, node: &str) -> Result<()> {
    let path = format!("/api/v1/nodes/{}/console", segment(node));
    let mut pieces = client.pieces(&path).await?;
    let by_hand = std::io::stdin().is_terminal();
    if by_hand {
        eprintln!("the serial console of {node}; Ctrl-] leaves");
    }
    let raw = by_hand.then(Raw::take).transpose()?;
    let (send, keys) = mpsc::channel(64);
    // Reading a terminal cannot be broken off: the thread ends with the program.
    std::thread::spawn(move || read_keys(&send));
    let (left, mut leaving) = tokio::sync::oneshot::channel();
    let typed = unfold((keys, Some(left)), |(mut keys, mut left)| async move {
        let Some(piece) = keys.recv().await else {
            // The input ended without Ctrl-]: only look on from now.
            return None;
        };
        match piece {
            Key::Typed(bytes) => Some((Ok(bytes.into()), (keys, left))),
            Key::Leave => {
                let _ = left.take().map(|left: tokio::sync::oneshot::Sender<()>| left.send(()));
                None
            }
        }
    });
    let mut typing = Box::pin(client.post_stream(&path, Box::pin(typed)));
    let (mut done, mut forgotten) = (false, false);
    let mut out = std::io::stdout();
    let ended = loop {
        tokio::select! {
            piece = pieces.next() => match piece {
                Some(piece) => {
                    out.write_all(&piece)?;
                    out.flush()?;
                }
                None => break Ok("the console ended"),
            },
            typed = &mut typing, if !done => match typed {
                Ok(()) => done = true,
                Err(error) => break Err(error),
            },
            leave = &mut leaving, if !forgotten => match leave {
                Ok(()) => break Ok("left"),
                // The keyboard ended: only look on.
                Err(_) => forgotten = true,
            },
        }
    };
    drop(raw);
    eprintln!("\n{}", ended?);
    Ok(())
}

/// What comes from the keyboard.
enum Key {
    Typed(Vec<u8>),
    Leave,
}

fn read_keys(send: &mpsc::Sender<Key>) {
    let mut piece = [0; 1_024];
    while let Ok(length @ 1..) = std::io::stdin().read(&mut piece) {
        let bytes = piece.get(..length).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == LEAVE);
        let typed = bytes.get(..end.unwrap_or(length)).unwrap_or_default();
        if !typed.is_empty() && send.blocking_send(Key::Typed(typed.to_vec())).is_err() {
            return;
        }
        if end.is_some() {
            let _ = send.blocking_send(Key::Leave);
            return;
        }
    }
}
