//! The screen on the appliance's own console: what a person with a keyboard, or a serial cable, sees in the data hall.
//!
//! It is a client of the API through the local socket, so it shows nothing the page would not, and it goes on when the
//! daemon restarts. One of these runs per console. Keys: `l` the log, `t` the admin token while it has not been put
//! away, `r` restart, `p` switch off (both ask first), `q` back. What these change is told to the daemon before it is done,
//! and so is in the audit trail.

mod draw;
mod state;
mod terminal;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use crossterm::event::{Event as Input, KeyCode, KeyEventKind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rackbar_control::client::{Client, ClientError, Endpoint};
use rackbar_control::{AtConsole, ConsoleDeed};
use ratatui::crossterm;

use crate::cli::SOCKET;
use state::{Screen, View};

/// How often the screen looks again. A serial line at 115200 baud carries one full screen in a fifth of this.
const REFRESH: Duration = Duration::from_secs(1);

/// Longest wait for the daemon to write down what is done here.
const RECORD_LIMIT: Duration = Duration::from_secs(5);

/// Longest passphrase that can be typed here, in bytes.
const LONGEST_PASSPHRASE: usize = 1_024;

/// Options of `rackbar console`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rackbar console node-003\n      Ctrl-] leaves; what is typed goes to the machine\n  \
    rackbar console node-003 < /dev/null > boot.log\n      only looks on, until it ends or is stopped\n  \
    rackbar console node-003 --record | less -R\n      what it printed before, as far as it was recorded\n\n\
    Needs the role operator. A console is opened over the machine's BMC (Serial over LAN) and taken from whoever has it \
    there; several may look on here. What comes while it is open is recorded on the appliance; \
    `[bmc] record_consoles = true` in rackbar.toml keeps all open."
)]
pub struct Options {
    /// The machine
    #[arg(conflicts_with_all = ["tty", "socket"])]
    pub node: Option<String>,
    /// Print what was recorded of it, and end
    #[arg(long, requires = "node")]
    pub record: bool,
    /// The terminal to draw on; the one this program was started on when left out
    #[arg(long)]
    tty: Option<PathBuf>,
    /// The daemon's socket
    #[arg(long, default_value = SOCKET)]
    socket: PathBuf,
    /// The process that restarts and switches off the machine, for tests
    #[arg(long, default_value_t = 1, hide = true)]
    init: i32,
}

/// Draws until told to stop.
///
/// # Errors
/// When the terminal cannot be opened or drawn on.
pub async fn run(options: &Options) -> Result<()> {
    if let Some(tty) = &options.tty {
        terminal::take(tty).with_context(|| format!("opening the terminal {}", tty.display()))?;
    }
    let client = Client::new(Endpoint::Socket(options.socket.clone()))?;
    let (send, mut keys) = tokio::sync::mpsc::channel(16);
    // Kept, so that the channel stays open when the terminal cannot be read: a display without a keyboard.
    let _open = send.clone();
    std::thread::spawn(move || terminal::read_keys(&send));
    let mut terminal = terminal::Session::start()?;
    let mut screen = Screen::new(&options.socket);
    let unlock = options.socket.with_file_name(crate::daemon::UNLOCK);
    let mut tick = tokio::time::interval(REFRESH);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => screen.refresh(&client, &unlock).await,
            Some(input) = keys.recv() => match screen.view {
                View::Locked => on_passphrase(&mut screen, input, &unlock).await,
                _ => on_input(&mut screen, input, &client, options.init).await?,
            },
        }
        terminal.draw(|frame| draw::draw(frame, &screen))?;
    }
}

async fn on_input(screen: &mut Screen, input: Input, client: &Client, init: i32) -> Result<()> {
    let Input::Key(key) = input else { return Ok(()) };
    if key.kind != KeyEventKind::Press {
        return Ok(());
    }
    let view = screen.view;
    screen.view = match (view, key.code) {
        (View::ConfirmRestart, KeyCode::Char('y')) => {
            // A person in front of a machine that hangs must be able to restart it: recorded or not.
            let _ = recorded(client, ConsoleDeed::Restart).await;
            ask_init(init, Signal::SIGTERM)?;
            View::Status
        }
        (View::ConfirmOff, KeyCode::Char('y')) => {
            let _ = recorded(client, ConsoleDeed::PowerOff).await;
            ask_init(init, Signal::SIGUSR2)?;
            View::Status
        }
        (View::Token, KeyCode::Char('d')) => {
            if first_recorded(screen, client, ConsoleDeed::PutTokenAway).await {
                screen.put_token_away();
            }
            View::Status
        }
        (View::Log, KeyCode::Up) => screen.scroll(-1),
        (View::Log, KeyCode::Down) => screen.scroll(1),
        (View::Log, KeyCode::PageUp) => screen.scroll(-15),
        (View::Log, KeyCode::PageDown) => screen.scroll(15),
        (View::Log, KeyCode::Tab | KeyCode::Char('n')) => screen.next_log(),
        (View::Status, KeyCode::Char('l')) => View::Log,
        (View::Status, KeyCode::Char('t')) if screen.token.is_some() => {
            match first_recorded(screen, client, ConsoleDeed::ShowToken).await {
                true => View::Token,
                false => View::Status,
            }
        }
        (View::Status, KeyCode::Char('r')) => View::ConfirmRestart,
        (View::Status, KeyCode::Char('p')) => View::ConfirmOff,
        (View::Log, _) if !matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) => View::Log,
        _ => View::Status,
    };
    Ok(())
}

/// Has the daemon write into the audit trail what is about to be done here, and waits until it is durable.
async fn recorded(client: &Client, deed: ConsoleDeed) -> Result<(), String> {
    let body = AtConsole { deed };
    let answer = tokio::time::timeout(RECORD_LIMIT, client.post("/api/v1/appliance/deeds", &body)).await;
    let said: Result<_, ClientError> = answer.map_err(|_| "the daemon does not answer".to_owned())?;
    said.map(drop).map_err(|error| error.to_string())
}

/// The same for what is not done unless it is recorded. Shows why when it is not.
async fn first_recorded(screen: &mut Screen, client: &Client, deed: ConsoleDeed) -> bool {
    let said = recorded(client, deed).await;
    if let Err(reason) = &said {
        screen.appliance = None;
        screen.trouble = format!("not done, because it cannot be written into the audit trail: {reason}");
    }
    said.is_ok()
}

/// Takes the passphrase, and gives it to the daemon at the end of the line.
async fn on_passphrase(screen: &mut Screen, input: Input, unlock: &Path) {
    let Input::Key(key) = input else { return };
    if key.kind != KeyEventKind::Press {
        return;
    }
    match key.code {
        KeyCode::Char(letter) if screen.typed.len() < LONGEST_PASSPHRASE => screen.typed.push(letter),
        KeyCode::Backspace => drop(screen.typed.pop()),
        KeyCode::Esc => screen.typed.clear(),
        KeyCode::Enter => {
            let typed = std::mem::take(&mut screen.typed);
            screen.trouble = match crate::daemon::unlock(unlock, &typed).await {
                Ok(()) => "the daemon is starting".to_owned(),
                Err(error) => error.to_string(),
            };
        }
        _ => {}
    }
}

/// PID 1 takes SIGTERM for a restart and SIGUSR2 for switching off, and brings services down in order.
fn ask_init(init: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(init), signal).context("asking init")
}
