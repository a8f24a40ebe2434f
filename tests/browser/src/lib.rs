//! A real browser for tests: Debian's Chromium, driven by its ChromeDriver in the words of W3C WebDriver. Whatever goes
//! wrong is a panic, which is the failure of the test.

#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// A browser on a machine that builds beside it takes its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a page: the browser has two processors' work to do beside answering.
const BETWEEN: Duration = Duration::from_millis(100);
/// The key under which WebDriver names an element (section 11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser window of its own, without a profile.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

/// How often a driver is started before it is given up.
const TRIES: u32 = 5;

/// Starts a driver, and gives its port. `None` when it ended by itself: it takes a free port of IPv4 and ends when that of
/// IPv6 with the same number is not free, as when drivers start side by side.
fn driver() -> Option<(Child, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver: Debian package chromium-driver; `cargo xtask setup test` installs it");
    let mut lines = BufReader::new(driver.stdout.take().expect("its output is piped")).lines();
    let said = lines.find_map(|line| {
        line.ok()?
            .split_once("successfully on port ")
            .map(|found| found.1.to_owned())
    });
    let Some(said) = said else {
        driver.wait().expect("a driver's end");
        return None;
    };
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Some((driver, said.trim_end_matches('.').parse().expect("a port")))
}

impl Browser {
    /// Opens a window as wide and high as this, with JavaScript or without.
    pub fn open(width: u32, height: u32, javascript: bool) -> Self {
        let (driver, port) = (0..TRIES).find_map(|_| driver()).expect("chromedriver opens a port");
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            _profile: profile,
        };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let options = json!({
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                format!("--window-size={width},{height}"), profile,
            ],
            // 2 forbids it, as a person's own setting would.
            "prefs": { "profile.managed_default_content_settings.javascript": if javascript { 1 } else { 2 } },
            // A desktop's window is never narrower than 500 pixels; a phone's is.
            "mobileEmulation": { "deviceMetrics": { "width": width, "height": height, "pixelRatio": 1.0, "touch": false } },
        });
        // The certificate is the site's own; that it is the right one is the command line's test.
        let capabilities = json!({ "acceptInsecureCerts": true, "goog:chromeOptions": options });
        let made = browser.ask(
            "POST",
            "/session",
            &json!({ "capabilities": { "alwaysMatch": capabilities } }),
        );
        browser.session = made["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// One command; gives its value.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let asked = self.try_ask(method, path, body);
        asked.unwrap_or_else(|words| panic!("{method} {path}: {words}"))
    }

    /// One command: its value, or what the driver says against it.
    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if method == "POST" {
            body.to_string()
        } else {
            String::new()
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        // It keeps the connection open, whatever it is asked.
        let mut answer = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(answer.read_line(&mut head).unwrap(), 0, "{method} {path}: {head}");
        }
        let lower = head.to_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
        let mut body = vec![0; length.unwrap().trim().parse().unwrap()];
        answer.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        if !head.starts_with("HTTP/1.1 200") {
            return Err(format!("{head}{body}"));
        }
        let mut value: Value = serde_json::from_str(&body).unwrap();
        Ok(value["value"].take())
    }

    /// Closes the window, and waits for the answer.
    fn end(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (session, port) = (&self.session, self.port);
        write!(
            stream,
            "DELETE /session/{session} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
        )?;
        stream.read_exact(&mut [0])
    }

    fn tell(&self, command: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}/{command}", self.session), body)
    }

    /// Asks for something that changes nothing. A page that is just left has no answer, and the next one has: it is asked again.
    fn look(&self, command: &str) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        let end = Instant::now() + PATIENCE;
        loop {
            match self.try_ask("GET", &path, &Value::Null) {
                Ok(value) => return value,
                Err(words) => {
                    let left = words.contains("aborted by navigation");
                    assert!(left && Instant::now() < end, "GET {path}: {words}");
                    std::thread::sleep(BETWEEN);
                }
            }
        }
    }

    /// Goes to a page and waits until it is loaded.
    pub fn go(&self, url: &str) {
        self.tell("url", &json!({ "url": url }));
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.look("url").as_str().unwrap().to_owned()
    }

    /// Waits until it is there; a click comes back before the next page does.
    pub fn until_at(&self, url: &str) {
        let end = Instant::now() + PATIENCE;
        while self.url() != url {
            assert!(Instant::now() < end, "at {} and not at {url}", self.url());
            std::thread::yield_now();
        }
    }

    /// Does something with what a CSS selector finds. A live page exchanges its elements, also between finding one and
    /// using it (WebDriver, section 6.6: stale element reference, no such element): it is found anew then.
    fn with(&self, selector: &str, method: &str, what: &str, body: &Value) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let session = format!("/session/{}", self.session);
            let find = json!({ "using": "css selector", "value": selector });
            let found = self.try_ask("POST", &format!("{session}/element"), &find);
            let done = found.and_then(|found| {
                let element = found[ELEMENT].as_str().unwrap();
                self.try_ask(method, &format!("{session}/element/{element}/{what}"), body)
            });
            match done {
                Ok(value) => return value,
                Err(words) => {
                    let exchanged = words.contains("stale element reference") || words.contains("no such element");
                    assert!(exchanged && Instant::now() < end, "{what} of {selector}: {words}");
                    std::thread::sleep(BETWEEN);
                }
            }
        }
    }

    /// Types into the field that a CSS selector finds.
    pub fn fill(&self, selector: &str, text: &str) {
        self.with(selector, "POST", "value", &json!({ "text": text }));
    }

    /// Clicks on what a CSS selector finds.
    pub fn click(&self, selector: &str) {
        self.with(selector, "POST", "click", &json!({}));
    }

    /// The text of what a CSS selector finds, as a person sees it.
    pub fn text(&self, selector: &str) -> String {
        let text = self.with(selector, "GET", "text", &Value::Null);
        text.as_str().unwrap().to_owned()
    }

    /// What a script gives. It is the driver's, and runs also where the page's own may not.
    pub fn run(&self, script: &str) -> Value {
        self.tell("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Logs in at an appliance's page with a token, and waits until its first page is there. `home` is the address
    /// without a path, as the browser writes it.
    pub fn log_in(&self, home: &str, token: &str) {
        self.go(home);
        assert!(self.url().ends_with("/login"), "{}", self.url());
        self.fill("input[name=token]", token.trim());
        self.click("main button");
        self.until_at(&format!("{home}/"));
    }

    /// Asserts that what is shown is no wider than the window.
    pub fn assert_fits(&self, what: &str) {
        let width = self.run("return document.documentElement.scrollWidth - window.innerWidth;");
        assert!(
            width.as_i64().unwrap() <= 0,
            "{what} is {width} pixels wider than the window"
        );
    }

    /// Waits until the page holds `wanted`.
    pub fn until_shown(&self, wanted: &str) {
        self.until(&format!("{wanted:?} is shown"), PATIENCE, |source| {
            source.contains(wanted).then_some(())
        });
    }

    /// Waits until something is found in the page's source, which is looked at because an element may be exchanged between
    /// two looks; gives what was found.
    pub fn until<T>(&self, what: &str, limit: Duration, find: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + limit;
        loop {
            let source = self.look("source");
            let source = source.as_str().unwrap_or_default();
            if let Some(found) = find(source) {
                return found;
            }
            assert!(
                Instant::now() < end,
                "not within {} s: {what}; {source}",
                limit.as_secs()
            );
            std::thread::sleep(BETWEEN);
        }
    }

    /// The page as it is printed, a PDF (WebDriver, section 18.1).
    pub fn print(&self) -> Vec<u8> {
        let pdf = self.tell("print", &json!({}));
        BASE64_STANDARD.decode(pdf.as_str().unwrap()).unwrap()
    }

    /// Keeps a picture of what is shown.
    pub fn picture(&self, path: &Path) {
        let png = self.look("screenshot");
        std::fs::write(path, BASE64_STANDARD.decode(png.as_str().unwrap()).unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser is no child of ours: without this it goes on after a test that failed.
        if !self.session.is_empty() {
            let _ = self.end();
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
