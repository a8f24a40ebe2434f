//! Drawing the screen.

use rackbar_model::Severity;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Wrap};

use super::state::{Screen, View};

/// The most lines of one event: a hostile or endless text must not push the others out.
const EVENT_LINES: usize = 6;

/// Draws what is in front.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(top_height(screen)),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(screen), top);
    match screen.view {
        View::Log => log(frame, screen, middle),
        _ => events(frame, screen, middle),
    }
    frame.render_widget(keys(screen), bottom);
    match screen.view {
        View::ConfirmRestart => question(
            frame,
            "Restart the appliance? Machines that boot right now will fail. y / n",
        ),
        View::ConfirmOff => question(
            frame,
            "Switch the appliance off? Machines that boot right now will fail. y / n",
        ),
        View::Token => {
            let token = screen.token.as_deref().unwrap_or_default();
            question(
                frame,
                &format!(
                    "Admin token, shown once. Write it down:\n\n{token}\n\nd: written down, delete it here   q: back"
                ),
            );
        }
        View::Locked => {
            let stars = "*".repeat(screen.typed.chars().count());
            question(
                frame,
                &format!(
                    "The stored passwords and keys are locked. Until they are open this appliance serves nothing.\n\n\
                     Passphrase: {stars}\n\n{}",
                    screen.trouble
                ),
            );
        }
        View::Status | View::Log => {}
    }
}

fn top_height(screen: &Screen) -> u16 {
    let troubled = screen.services.iter().filter(|s| s.severity > Severity::Info).count();
    (6 + troubled.min(6)) as u16
}

fn color(severity: Severity) -> Style {
    match severity {
        Severity::Info => Style::default(),
        Severity::Warning => Style::default().fg(Color::Yellow),
        Severity::Error => Style::default().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

fn header(screen: &Screen) -> Paragraph<'_> {
    let mut lines = Vec::new();
    match &screen.appliance {
        Some(appliance) => {
            lines.push(Line::from(vec![
                " Rackbar ".bold().reversed(),
                format!(" {} {}", appliance.version, appliance.site).into(),
            ]));
            lines.push(Line::from(format!("Addresses    {}", screen.addresses.join(", "))));
            lines.push(Line::from(format!("Fingerprint  {}", appliance.fingerprint)));
            let states: Vec<_> = screen
                .states
                .iter()
                .map(|(state, count)| format!("{count} {state}"))
                .collect();
            let machines = if states.is_empty() {
                "none has shown itself yet".to_owned()
            } else {
                states.join(", ")
            };
            lines.push(Line::from(format!("Machines     {machines}")));
            if appliance.volatile {
                lines.push(Line::styled(
                    "Runs from memory, lost with the power: `rackbar storage` gives it a disk.",
                    color(Severity::Warning),
                ));
            }
        }
        None => {
            lines.push(Line::from(" Rackbar ".bold().reversed()));
            lines.push(Line::styled(screen.trouble.as_str(), color(Severity::Warning)));
            lines.push(Line::from(format!("Addresses    {}", screen.addresses.join(", "))));
        }
    }
    let fine = screen
        .services
        .iter()
        .filter(|s| s.severity == Severity::Info)
        .map(|s| s.name.as_str());
    lines.push(Line::from(format!(
        "Services     {}",
        fine.collect::<Vec<_>>().join(" ")
    )));
    for service in screen.services.iter().filter(|s| s.severity > Severity::Info).take(6) {
        lines.push(Line::styled(
            format!("{}: {}", service.name, service.state),
            color(service.severity),
        ));
    }
    Paragraph::new(lines)
}

fn events(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let block = Block::default().borders(Borders::TOP).title(" Events ");
    let inner = block.inner(area);
    let lines: Vec<_> = screen
        .events
        .iter()
        .flat_map(|event| told(event, inner.width.into()))
        .collect();
    let skip = lines.len().saturating_sub(inner.height.into());
    frame.render_widget(Paragraph::new(lines[skip..].to_vec()).block(block), area);
}

/// An event on as many lines as it needs: what is wrong in a file, and what would be right, stands at a line's end.
fn told(event: &super::state::Line, width: usize) -> Vec<Line<'_>> {
    let indent = event.time.chars().count() + 1;
    let mut folded = folded(&event.text, width.saturating_sub(indent).max(1));
    if folded.len() > EVENT_LINES {
        folded.truncate(EVENT_LINES);
        folded.push("... (l: the log)".to_owned());
    }
    let lines = folded.into_iter().enumerate().map(|(at, text)| {
        let time = if at == 0 { event.time.as_str() } else { "" };
        Line::from(vec![
            Span::raw(format!("{time:indent$}")).dim(),
            Span::styled(text, color(event.severity)),
        ])
    });
    lines.collect()
}

/// A text in lines of at most `width` characters, broken between words where there is a place for it.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for whole in text.lines() {
        let mut rest: Vec<char> = whole.chars().collect();
        while rest.len() > width {
            let space = rest[..=width].iter().rposition(|character| *character == ' ');
            let at = space.filter(|at| *at > 0).unwrap_or(width);
            let tail = rest.split_off(at);
            lines.push(rest.into_iter().collect());
            rest = tail.into_iter().skip_while(|character| *character == ' ').collect();
        }
        lines.push(rest.into_iter().collect());
    }
    lines
}

fn log(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let block = Block::default()
        .borders(Borders::TOP)
        .title(format!(" Log: {} ", screen.log_name));
    let room = usize::from(block.inner(area).height);
    let end = screen.log.len().saturating_sub(screen.scrolled);
    let lines: Vec<_> = screen.log[end.saturating_sub(room)..end]
        .iter()
        .map(|line| Line::from(line.as_str()))
        .collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn keys(screen: &Screen) -> Paragraph<'static> {
    let token = if screen.token.is_some() { "t token  " } else { "" };
    let text = match screen.view {
        View::Log => "up/down scroll  n next log  q back".to_owned(),
        View::Locked => "Enter: open   Esc: begin again".to_owned(),
        _ => format!("{token}l log  r restart  p power off"),
    };
    Paragraph::new(text).dim()
}

fn question(frame: &mut Frame<'_>, text: &str) {
    let area = frame.area();
    let height = text.lines().count() as u16 + 4;
    let width = area.width.min(76);
    let room = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + area.height.saturating_sub(height) / 2,
        width,
        height: height.min(area.height),
    };
    frame.render_widget(Clear, room);
    let text = Text::from(text.to_owned());
    frame.render_widget(
        Paragraph::new(text).wrap(Wrap { trim: true }).block(Block::bordered()),
        room,
    );
}

#[cfg(test)]
mod tests {
    use rackbar_model::{ServiceStatus, Timestamp};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::Appliance;
    use super::*;

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        terminal.backend().to_string()
    }

    fn screen() -> Screen {
        let mut screen = Screen::new(std::path::Path::new(crate::cli::SOCKET));
        screen.appliance = Some(Appliance {
            site: "hall-3".into(),
            version: "0.1.0".into(),
            fingerprint: "ab".repeat(32),
            volatile: true,
        });
        screen.addresses = vec!["10.10.0.1 on eth0".into()];
        screen.states.insert("discovered", 4);
        let service = |name: &str, state: &str, severity| ServiceStatus {
            name: name.into(),
            state: state.into(),
            severity,
            since: Timestamp(0),
        };
        screen.services = vec![
            service("dhcp", "serving", Severity::Info),
            service("tftp", "port 69 is taken", Severity::Error),
        ];
        screen
    }

    #[test]
    fn console_shows_what_a_person_in_the_data_hall_needs() {
        let text = drawn(&screen(), 100, 30);
        for part in [
            "hall-3",
            "10.10.0.1 on eth0",
            &"ab".repeat(32),
            "4 discovered",
            "Runs from memory",
            "port 69 is taken",
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        assert!(!text.contains("t token"), "there is no token to show\n{text}");
    }

    #[test]
    fn console_shows_the_token_only_when_asked() {
        let mut screen = screen();
        screen.token = Some("secret-token".into());
        let text = drawn(&screen, 80, 24);
        assert!(text.contains("t token") && !text.contains("secret-token"), "{text}");
        screen.view = View::Token;
        assert!(drawn(&screen, 80, 24).contains("secret-token"));
    }

    #[test]
    fn console_asks_for_the_passphrase_and_does_not_show_it() {
        let mut screen = screen();
        screen.view = View::Locked;
        screen.typed = "correct horse".into();
        let text = drawn(&screen, 80, 24);
        assert!(text.contains("Passphrase: *************"), "{text}");
        assert!(!text.contains("correct"), "{text}");
    }

    #[test]
    fn console_shows_a_long_event_to_its_end_and_no_more_than_some_lines_of_it() {
        let mut screen = screen();
        let event = |text: String| super::super::state::Line {
            time: "03:41:53".into(),
            text,
            severity: Severity::Error,
        };
        let mistake = "configuration /esp/rackbar.toml: line 10, network.dhcp: unknown variant `onw`, expected one of \
                       `own`, `proxy`, `auto`, `off`; did you mean own?\nline 12, pool: no address";
        screen.events = vec![event(mistake.into())];
        let text = drawn(&screen, 80, 24);
        for part in ["line 10, network.dhcp", "`onw`", "did you mean own?", "line 12, pool"] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        screen.events = vec![event("x".repeat(4000)), event("the newest".into())];
        let text = drawn(&screen, 80, 24);
        assert!(text.contains("l: the log") && text.contains("the newest"), "{text}");
    }

    #[test]
    fn console_fits_any_terminal() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            for view in [
                View::Status,
                View::Log,
                View::Token,
                View::ConfirmOff,
                View::ConfirmRestart,
                View::Locked,
            ] {
                let mut screen = screen();
                screen.view = view;
                screen.log = vec!["a line".into(); 200];
                screen.scrolled = 500;
                drawn(&screen, width, height);
            }
        }
    }
}
