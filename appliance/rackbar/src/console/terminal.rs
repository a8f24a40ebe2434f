//! The terminal: taking it over, its size, its keys.

use std::fs::OpenOptions;
use std::io::{self, Stdout};
use std::path::Path;

use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::terminal::{self, ClearType};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::Rect;
use ratatui::prelude::CrosstermBackend;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use tokio::sync::mpsc::Sender;

/// What a serial console is taken for: it cannot tell its size.
const SERIAL_SIZE: Rect = Rect {
    x: 0,
    y: 0,
    width: 80,
    height: 24,
};

/// Makes `tty` our standard input and output.
pub(super) fn take(tty: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(tty)?;
    nix::unistd::dup2_stdin(&file)?;
    nix::unistd::dup2_stdout(&file)?;
    Ok(())
}

/// Sends what is typed until nobody listens or the terminal cannot be read.
pub(super) fn read_keys(send: &Sender<Event>) {
    while let Ok(event) = event::read() {
        if send.blocking_send(event).is_err() {
            return;
        }
    }
}

/// The terminal in raw mode, put back when dropped.
pub(super) struct Session {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Session {
    pub(super) fn start() -> io::Result<Self> {
        // A display without a keyboard is no reason to show nothing.
        let _ = terminal::enable_raw_mode();
        let mut out = io::stdout();
        execute!(out, terminal::Clear(ClearType::All), cursor::Hide)?;
        let known = terminal::size().is_ok_and(|(width, height)| width >= 40 && height >= 10);
        let viewport = if known {
            Viewport::Fullscreen
        } else {
            Viewport::Fixed(SERIAL_SIZE)
        };
        let terminal = Terminal::with_options(CrosstermBackend::new(out), TerminalOptions { viewport })?;
        Ok(Self { terminal })
    }

    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(render).map(|_| ())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = terminal::disable_raw_mode();
        let _ = execute!(io::stdout(), cursor::Show);
    }
}
