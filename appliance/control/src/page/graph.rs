//! A plan's graph as SVG, drawn here: a lane for each machine, time to the right, an arrow for each need. Of many machines an
//! overview: a row for each, with a cell for each of its actions in their order.
//!
//! What an action stands at is said by a word in its box and only underlined by colour. Everything that came from
//! outside goes through [`escape`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rackbar_plan::{Action, ActionId, Plan, Run};

use super::plan_view::{StandRow, layer_number};

/// Sizes in CSS pixels.
const BOX_WIDTH: usize = 124;
const BOX_HEIGHT: usize = 42;
const COLUMN: usize = 152;
const ROW: usize = 54;
const LANE_HEAD: usize = 24;
const MARGIN: usize = 8;
/// More lanes than this, with their arrows, are no picture any more.
const MAX_LANES: usize = 40;
/// More rows than this are no overview either; the page says so and lists them.
const MAX_ROWS: usize = 1000;
/// A cell of the overview, and where the first one begins.
const CELL: usize = 18;
const FIRST_CELL: usize = 180;

/// Where a box lies.
#[derive(Clone, Copy)]
struct Place {
    x: usize,
    y: usize,
}

struct Lane<'a> {
    name: String,
    /// Actions by column.
    columns: BTreeMap<usize, Vec<&'a Action>>,
}

impl Lane<'_> {
    fn len(&self) -> usize {
        self.columns.values().map(Vec::len).sum()
    }
}

/// The graph; `None` when it would be too large to be looked at, or is empty. `name` gives a machine's name.
pub(super) fn svg(plan: &Plan, run: Option<&Run>, name: impl Fn(rackbar_model::NodeId) -> String) -> Option<String> {
    let lanes = lanes(plan, name);
    match lanes.len() {
        0 => return None,
        1..=MAX_LANES => {}
        count if count <= MAX_ROWS => return Some(overview(&lanes, run)),
        _ => return None,
    }
    let mut places: BTreeMap<&ActionId, Place> = BTreeMap::new();
    let mut heads = String::new();
    let (mut y, mut last_column) = (MARGIN, 0);
    for lane in &lanes {
        // Writing to a String cannot fail, here and below.
        let _ = write!(
            heads,
            "<text class=\"lane\" x=\"{MARGIN}\" y=\"{}\">{}</text>",
            y + 16,
            escape(&lane.name)
        );
        let rows = lane.columns.values().map(Vec::len).max().unwrap_or(1);
        for (column, actions) in &lane.columns {
            last_column = last_column.max(*column);
            for (row, action) in actions.iter().enumerate() {
                let place = Place {
                    x: MARGIN + column * COLUMN,
                    y: y + LANE_HEAD + row * ROW,
                };
                places.insert(&action.id, place);
            }
        }
        y += LANE_HEAD + rows * ROW;
    }
    let (width, height) = (2 * MARGIN + last_column * COLUMN + BOX_WIDTH, y + MARGIN);
    let mut out = format!(
        "<svg class=\"graph\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"Actions of the plan and what each needs\">"
    );
    for action in &plan.actions {
        for need in &action.needs {
            if let (Some(from), Some(to)) = (places.get(need), places.get(&action.id)) {
                arrow(&mut out, *from, *to);
            }
        }
    }
    out.push_str(&heads);
    for action in &plan.actions {
        if let Some(place) = places.get(&action.id) {
            draw(&mut out, action, *place, run);
        }
    }
    out.push_str("</svg>");
    Some(out)
}

/// Of each lane one row. What waits for another machine is not drawn: with so many it would be all that is seen.
fn overview(lanes: &[Lane<'_>], run: Option<&Run>) -> String {
    let most = lanes.iter().map(Lane::len).max().unwrap_or_default();
    let (width, height) = (2 * MARGIN + FIRST_CELL + most * CELL, 2 * MARGIN + lanes.len() * CELL);
    let mut out = format!(
        "<svg class=\"graph overview\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"Each machine's actions in their order\">"
    );
    for (row, lane) in lanes.iter().enumerate() {
        let y = MARGIN + row * CELL;
        // Writing to a String cannot fail, here and below.
        let _ = write!(
            out,
            "<text class=\"lane\" x=\"{MARGIN}\" y=\"{}\">{}</text>",
            y + 13,
            escape(&shortened(&lane.name, 24))
        );
        for (at, action) in lane.columns.values().flatten().enumerate() {
            cell(&mut out, action, MARGIN + FIRST_CELL + at * CELL, y, run);
        }
    }
    out.push_str("</svg>");
    out
}

fn cell(out: &mut String, action: &Action, x: usize, y: usize, run: Option<&Run>) {
    let stand = run.and_then(|run| run.actions.get(&action.id)).map(StandRow::from);
    let class = stand.as_ref().map_or("planned", |stand| stand.class);
    let destroys = if action.destroys.is_some() { " destroys" } else { "" };
    let sign = match class {
        "done" => "✓",
        "running" => "▸",
        "again" => "↻",
        "failed" => "✗",
        "skipped" => "–",
        _ if action.destroys.is_some() => "!",
        _ => "·",
    };
    let short = stand.map(|stand| format!(": {}", stand.short)).unwrap_or_default();
    let side = CELL - 3;
    let _ = write!(
        out,
        "<g class=\"act {class}{destroys}\"><title>{}{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" \
         rx=\"3\"/><text class=\"sign\" x=\"{}\" y=\"{}\">{sign}</text></g>",
        escape(&action.id.0),
        escape(&short),
        x + side / 2,
        y + 12,
    );
}

/// The lanes by machine name; an action's column is one more than the greatest of what it needs.
fn lanes(plan: &Plan, name: impl Fn(rackbar_model::NodeId) -> String) -> Vec<Lane<'_>> {
    let mut column_of: BTreeMap<&ActionId, usize> = BTreeMap::new();
    let mut lanes: BTreeMap<String, Lane<'_>> = BTreeMap::new();
    for action in &plan.actions {
        let needs = action.needs.iter().filter_map(|need| column_of.get(need));
        let column = needs.max().map_or(0, |greatest| greatest + 1);
        column_of.insert(&action.id, column);
        let name = action.node.map_or_else(|| action.shared().to_owned(), &name);
        let lane = lanes.entry(name.clone()).or_insert_with(|| Lane {
            name,
            columns: BTreeMap::new(),
        });
        lane.columns.entry(column).or_default().push(action);
    }
    lanes.into_values().collect()
}

fn arrow(out: &mut String, from: Place, to: Place) {
    let (x1, y1) = (from.x + BOX_WIDTH, from.y + BOX_HEIGHT / 2);
    let (x2, y2) = (to.x, to.y + BOX_HEIGHT / 2);
    let middle = x1 + (x2.saturating_sub(x1)) / 2;
    let _ = write!(
        out,
        "<path class=\"need\" d=\"M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}\"/>"
    );
}

fn draw(out: &mut String, action: &Action, place: Place, run: Option<&Run>) {
    let stand = run.and_then(|run| run.actions.get(&action.id)).map(StandRow::from);
    let class = stand.as_ref().map_or("planned", |stand| stand.class);
    let destroys = if action.destroys.is_some() { " destroys" } else { "" };
    let words = match (&stand, &action.destroys) {
        (Some(stand), _) => stand.short.clone(),
        (None, Some(_)) => "destroys data".to_owned(),
        (None, None) if action.reboots => "restarts".to_owned(),
        (None, None) => format!("layer {}", layer_number(action.layer)),
    };
    let Place { x, y } = place;
    let _ = write!(
        out,
        "<g class=\"act {class}{destroys}\"><title>{}: {}</title>\
         <rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"6\"/>",
        escape(&action.id.0),
        escape(&action.reason),
    );
    if let Some(percent) = stand.as_ref().and_then(|stand| stand.percent) {
        let width = BOX_WIDTH * usize::from(percent.min(100)) / 100;
        let bottom = y + BOX_HEIGHT - 4;
        let _ = write!(
            out,
            "<rect class=\"bar\" x=\"{x}\" y=\"{bottom}\" width=\"{width}\" height=\"4\"/>"
        );
    }
    let _ = write!(
        out,
        "<text class=\"what\" x=\"{}\" y=\"{}\">{}</text><text class=\"stand\" x=\"{}\" y=\"{}\">{}</text></g>",
        x + 8,
        y + 17,
        escape(&shortened(short_name(action), 17)),
        x + 8,
        y + 33,
        escape(&shortened(&words, 19)),
    );
}

/// The part of an action's name behind its machine.
fn short_name(action: &Action) -> &str {
    action
        .id
        .0
        .split_once('/')
        .map_or(action.id.0.as_str(), |(_, rest)| rest)
}

/// Cut to what fits into a box.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Text made safe for XML and HTML, inside elements and attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    /// A plan that empties the disk of each of so many machines.
    fn plan(machines: u16) -> Plan {
        let id = |number: u16| {
            rackbar_model::NodeId([[7; 14].as_slice(), &number.to_be_bytes()].concat().try_into().unwrap())
        };
        let mut whole = fake::plan(id(0));
        let (shared, own): (Vec<Action>, Vec<Action>) = whole.actions.into_iter().partition(|one| one.node.is_none());
        whole.actions = shared;
        for number in 0..machines {
            let named = |one: &ActionId| match own.iter().any(|other| other.id == *one) {
                true => ActionId(format!("{number}/{}", one.0)),
                false => one.clone(),
            };
            whole.actions.extend(own.iter().map(|one| Action {
                id: named(&one.id),
                node: Some(id(number)),
                needs: one.needs.iter().map(named).collect(),
                ..one.clone()
            }));
        }
        whole
    }

    #[test]
    fn of_many_machines_there_is_an_overview_with_each_action_and_how_it_stands() {
        let plan = plan(60);
        let name = |node: rackbar_model::NodeId| format!("<{node}>");
        let drawn = svg(&plan, None, name).unwrap();
        let cells = |svg: &str, class: &str| svg.matches(&format!("<g class=\"act {class}")).count();
        assert_eq!(cells(&drawn, ""), plan.actions.len());
        assert_eq!(drawn.matches("class=\"lane\"").count(), 61);
        assert_eq!(drawn.matches(">!</text>").count(), 60, "each of them loses its data");
        assert!(!drawn.contains("<07"), "{drawn}");
        let mut run = fake::run(rackbar_model::NodeId([7; 16]));
        let first = plan.actions[1].id.clone();
        let done = run
            .actions
            .values()
            .find(|stand| matches!(stand, rackbar_plan::Stand::Done { .. }))
            .unwrap();
        run.actions = [(first.clone(), done.clone())].into();
        let drawn = svg(&plan, Some(&run), name).unwrap();
        assert_eq!((cells(&drawn, "done"), drawn.matches(">✓</text>").count()), (1, 1));
        assert!(drawn.contains(&format!("<title>{}: ", first.0)), "{drawn}");
    }

    #[test]
    fn few_machines_have_arrows_and_too_many_no_picture() {
        let name = |node: rackbar_model::NodeId| node.to_string();
        assert!(svg(&plan(39), None, name).unwrap().contains("class=\"need\""));
        assert!(!svg(&plan(40), None, name).unwrap().contains("class=\"need\""));
        assert!(svg(&plan(999), None, name).is_some() && svg(&plan(1000), None, name).is_none());
    }

    #[test]
    fn text_from_outside_stays_text() {
        assert_eq!(
            escape("<a href='x' b=\"y\">&\u{1b}"),
            "&lt;a href=&#39;x&#39; b=&quot;y&quot;&gt;&amp; "
        );
        assert_eq!(shortened("os.write", 17), "os.write");
        assert_eq!(shortened("step:ünïcödé names are long", 6), "step:…");
    }
}
