//! `cargo xtask rack` as a developer uses it: a rack in one terminal, its verbs in a second, Ctrl-C, and nothing left.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rackbar_scenarios::install::READY;
use rackbar_scenarios::{DISCOVERED, SERVING, eventually, media, times};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

/// The rack's name, which no other has: racks of this checkout are found by it.
const NAME: &str = "verbs";
const RACK: &str = "name = \"verbs\"\ndescription = \"one machine to try the verbs on\"\n\n\
                    [[node]]\nname = \"n1\"\nfirmware = \"bios-ipxe\"\n";
/// How long a verb of the second terminal may take, and the rack to come down.
const SOON: Duration = Duration::from_secs(180);

/// The built `xtask`: what `cargo xtask test` runs as, or what Cargo built beside this test.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("RACKBAR_XTASK") {
        return Ok(program.into());
    }
    let test = std::env::current_exe()?;
    let folder = test.parent().and_then(Path::parent).context("Cargo's folder")?;
    let program = folder.join("xtask");
    ensure!(
        program.exists(),
        "{} is not built: cargo build -p xtask",
        program.display()
    );
    Ok(program)
}

/// A terminal: a folder for what the rack leaves, and one for ourselves.
struct Terminal {
    program: PathBuf,
    racks: tempfile::TempDir,
    ours: tempfile::TempDir,
}

impl Terminal {
    fn open() -> Result<Self> {
        Ok(Self {
            program: program()?,
            racks: tempfile::tempdir()?,
            ours: tempfile::tempdir()?,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("rack")
            .args(arguments)
            // Of this checkout, wherever the test is run.
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("TMPDIR", self.racks.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// A verb that ends by itself.
    async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = tokio::time::timeout(SOON, self.command(arguments).output()).await;
        Ok(output.with_context(|| format!("{arguments:?} does not end"))??)
    }

    /// What a verb prints that does what it should.
    async fn said(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{arguments:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(said)
    }

    fn start(&self, arguments: &[&str]) -> Result<Running> {
        let mut child = self.command(arguments).spawn()?;
        let printed = Arc::new(Mutex::new(Vec::new()));
        follow(child.stdout.take().context("its output")?, Arc::clone(&printed));
        follow(child.stderr.take().context("its errors")?, Arc::clone(&printed));
        Ok(Running { child, printed })
    }

    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.ours.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// What the rack keeps while it runs.
    fn left(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.racks.path())?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    /// Processes whose arguments name the rack's folder.
    fn processes(&self) -> Result<Vec<String>> {
        let folder = self.racks.path().display().to_string();
        let entries = std::fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path().join("cmdline")));
        // One that ends at this moment has no arguments any more.
        let arguments = entries.filter_map(|path| std::fs::read_to_string(path).ok());
        let arguments = arguments.map(|text| text.replace('\0', " "));
        Ok(arguments.filter(|text| text.contains(&folder)).collect())
    }
}

fn follow(mut from: impl AsyncRead + Unpin + Send + 'static, printed: Arc<Mutex<Vec<u8>>>) {
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
            printed.extend_from_slice(&buffer[..count]);
        }
    });
}

/// A verb that runs until it is ended.
struct Running {
    child: Child,
    printed: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    fn printed(&self) -> String {
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&printed).into_owned()
    }

    async fn until(&mut self, text: &str, limit: Duration) -> Result<()> {
        let mut ended = None;
        let seen = || {
            ended = ended.or(self.child.try_wait().ok().flatten());
            let printed = self.printed();
            let seen = printed.contains(text);
            let ended = ended;
            async move {
                match (seen, ended) {
                    (true, _) => Ok(Ok(())),
                    // Nothing more will come.
                    (false, Some(status)) => Ok(Err(format!("it ended ({status}):\n{printed}"))),
                    (false, None) => Err(printed),
                }
            }
        };
        let seen = eventually(&format!("it prints {text:?}"), limit, seen).await?;
        seen.map_err(anyhow::Error::msg)
    }

    /// Ctrl-C, and the end.
    async fn interrupt(mut self) -> Result<(std::process::ExitStatus, String)> {
        let process = self.child.id().context("it has ended already")?;
        kill(Pid::from_raw(process.cast_signed()), Signal::SIGINT)?;
        let ended = tokio::time::timeout(SOON, self.child.wait()).await;
        let ended = ended.with_context(|| format!("Ctrl-C does not end it:\n{}", self.printed()))??;
        Ok((ended, self.printed()))
    }
}

/// A rack file that is wrong is refused by line and field; a right one is a rack, until Ctrl-C takes all of it down.
#[tokio::test(flavor = "multi_thread")]
async fn a_rack_is_started_used_from_a_second_terminal_and_taken_down() -> Result<()> {
    let _time = times::Told::begin();
    let terminal = Terminal::open()?;
    a_wrong_file_is_refused(&terminal).await?;
    let file = terminal.write("verbs.toml", RACK)?;
    let media = media()?.display().to_string();
    let mut rack = terminal.start(&[&file, "--discover", "--image", &media])?;
    rack.until("appliance: serves after ", SERVING).await?;
    rack.until("n1: discovered as ", DISCOVERED).await?;
    rack.until("rack down ", SOON).await?;
    let printed = rack.printed();
    for word in [
        "n1: switched on through its BMC",
        "page   https://127.0.0.1:",
        "token  ",
        "n1: inspecting: ",
    ] {
        ensure!(printed.contains(word), "no {word:?} in:\n{printed}");
    }
    ensure!(terminal.processes()?.len() >= 2, "{:?}", terminal.processes()?);
    ensure!(terminal.left()?.len() == 1, "{:?}", terminal.left()?);
    the_second_terminal_does_what_it_says(&terminal).await?;

    let (ended, printed) = rack.interrupt().await?;
    println!("{printed}");
    ensure!(
        ended.success() && printed.contains("taking the rack down"),
        "{ended}:\n{printed}"
    );
    ensure!(
        terminal.processes()?.is_empty(),
        "still there: {:?}",
        terminal.processes()?
    );
    ensure!(terminal.left()?.is_empty(), "left behind: {:?}", terminal.left()?);
    let gone = terminal.run(&["power", "n1", "on", "--rack", NAME]).await?;
    let said = String::from_utf8_lossy(&gone.stderr).into_owned();
    ensure!(!gone.status.success() && said.contains("no such rack runs"), "{said}");
    Ok(())
}

async fn a_wrong_file_is_refused(terminal: &Terminal) -> Result<()> {
    let wrong = terminal.write("wrong.toml", &format!("{RACK}memory_mb = 512\n"))?;
    let refused = terminal.run(&[&wrong, "--discover"]).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success(), "taken: {said}");
    for part in [wrong.as_str(), "line 7", "memory_mb"] {
        ensure!(said.contains(part), "no {part:?} in: {said}");
    }
    ensure!(terminal.left()?.is_empty(), "left behind: {:?}", terminal.left()?);
    Ok(())
}

/// Console, capture, cut and power, each seen to have been done.
async fn the_second_terminal_does_what_it_says(terminal: &Terminal) -> Result<()> {
    let at = |part: &str, list: &str| list.lines().any(|line| line.contains(NAME) && line.contains(part));
    let n1 = |list: &str, power: &str| {
        let line = list.lines().find(|line| line.contains(NAME) && line.contains(" n1 "));
        line.is_some_and(|line| line.split_whitespace().any(|word| word == power))
    };
    let list = terminal.said(&["list"]).await?;
    ensure!(at("appliance", &list) && n1(&list, "on"), "{list}");

    let mut console = terminal.start(&["console", "n1", "--rack", NAME])?;
    console.until("rackbar-agent", SOON).await?;
    console.child.kill().await?;

    let file = terminal.ours.path().join("n1.pcapng");
    let text = file.with_extension("timeline.txt");
    let output = file.display().to_string();
    let mut capture = terminal.start(&["capture", "n1", "-o", &output, "--rack", NAME])?;
    capture.until("capturing into", SOON).await?;
    let cut = terminal.said(&["cut", "n1", "--rack", NAME]).await?;
    ensure!(cut.contains("n1: cables pulled"), "{cut}");
    terminal.said(&["cut", "n1", "--heal", "--rack", NAME]).await?;
    let told = || async {
        let text = std::fs::read_to_string(&text)?;
        let both = ["the cables of n1 are pulled", "the cables of n1 are plugged in"];
        ensure!(both.iter().all(|part| text.contains(part)), "{text}");
        anyhow::Ok(())
    };
    eventually("the capture tells of the cables", SOON, told).await?;
    let (ended, printed) = capture.interrupt().await?;
    ensure!(ended.success(), "{ended}: {printed}");
    // The section header block of pcapng, by its type.
    ensure!(
        std::fs::read(&file)?.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]),
        "{output} is no capture"
    );

    terminal.said(&["power", "n1", "off", "--rack", NAME]).await?;
    let list = terminal.said(&["list"]).await?;
    ensure!(n1(&list, "off"), "{list}");
    terminal.said(&["power", "n1", "on", "--rack", NAME]).await?;
    let list = terminal.said(&["list"]).await?;
    ensure!(n1(&list, "on"), "{list}");
    Ok(())
}

/// The shipped rack as CI would run it, to its end: it ends by itself, says what it found, how long that took and what was
/// proven, and keeps its record where that is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_headless_run_of_the_demo_rack_ends_with_a_signed_report_and_keeps_its_record() -> Result<()> {
    let _time = times::Told::begin();
    let terminal = Terminal::open()?;
    let media = media()?.display().to_string();
    let unknown = terminal.run(&["dmeo", "--image", &media]).await?;
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(!unknown.status.success() && said.contains("demo, mixed"), "{said}");

    // No rack is named: it is the demo.
    let mut rack = terminal.start(&["--nodes", "1", "--headless", "--keep", "--image", &media])?;
    rack.until("taking the rack down", SERVING + DISCOVERED + READY).await?;
    let ended = tokio::time::timeout(SOON, rack.child.wait()).await;
    let ended = ended.with_context(|| format!("it does not end:\n{}", rack.printed()))??;
    rack.until("kept: ", SOON).await?;
    let printed = rack.printed();
    ensure!(ended.success(), "{ended}:\n{printed}");
    let line = printed
        .lines()
        .find(|line| line.contains("ready ") && line.contains("VR000001"));
    let line = line.with_context(|| format!("no table:\n{printed}"))?;
    ensure!(line.contains(" n1 ") && line.contains("Bios"), "{line}");
    ensure!(!printed.contains("n2: switched on"), "more than one node:\n{printed}");
    for words in [
        "appliance, power-on to serving:",
        "whole rack, power-on of the appliance to the last machine discovered:",
        "whole rack, power-on of the appliance to ready:",
        "1 of 1 nodes as wanted",
        "pass  os.identity",
    ] {
        ensure!(printed.contains(words), "no {words:?}:\n{printed}");
    }
    the_report_proves_itself(&printed).await?;
    let left = terminal.left()?;
    let [kept] = left.as_slice() else {
        anyhow::bail!("kept: {left:?}")
    };
    let timeline = std::fs::read_to_string(kept.join("run.timeline.txt"))?;
    ensure!(timeline.contains("n1"), "{timeline}");
    ensure!(kept.join("run.pcapng").metadata()?.len() > 100_000, "an empty capture");
    ensure!(
        terminal.processes()?.is_empty(),
        "still there: {:?}",
        terminal.processes()?
    );
    Ok(())
}

/// The file that the run left is checked by the command line alone, without the rack.
async fn the_report_proves_itself(printed: &str) -> Result<()> {
    let line = printed.lines().find_map(|line| line.strip_prefix("signed report: "));
    let report = line.with_context(|| format!("no report:\n{printed}"))?;
    let mut check = Command::new(media()?.join("rackbar"));
    let output = check.args(["report", "check", report]).output().await?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let said = said.concat();
    let proven = said.contains(" 0 failed") && said.contains("unchanged since it was signed");
    ensure!(output.status.success() && proven, "{}: {said}", output.status);
    Ok(())
}
