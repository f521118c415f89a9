//! A headless browser, by the W3C WebDriver protocol.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

/// A session of a browser, which ends when this is dropped.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    client: reqwest::Client,
}

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Browser {
    /// Fails with one line where there is no browser.
    pub(crate) async fn start() -> Result<Self, String> {
        let missing = |what: &str| format!("{what}: install Debian's `chromium` and `chromium-driver`");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| missing(&format!("`chromedriver` does not start ({error})")))?;
        let lines = driver
            .stdout
            .take()
            .map(BufReader::new)
            .into_iter()
            .flat_map(|out| out.lines().map_while(Result::ok));
        let mut port = lines.filter_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        });
        let port = port.next();
        let Some(port) = port else {
            _ = driver.kill();
            return Err(missing("`chromedriver` names no port"));
        };
        let client = reqwest::Client::new();
        let mut browser = Self { driver, port, session: String::new(), client };
        let args =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en"];
        let options = json!({ "args": args });
        let capabilities = json!({ "alwaysMatch": { "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } } });
        let session = browser.ask("POST", "/session", &json!({ "capabilities": capabilities })).await;
        let session = session.map_err(|error| missing(&format!("Chromium does not start ({error})")))?;
        browser.session = session["sessionId"].as_str().unwrap_or_default().to_owned();
        Ok(browser)
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let method = method.parse().map_err(|_| "a method".to_owned())?;
        let mut request = self.client.request(method, format!("http://127.0.0.1:{}{path}", self.port));
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        let is_ok = response.status().is_success();
        let text = response.text().await.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let value = answer["value"].take();
        match is_ok {
            true => Ok(value),
            false => Err(value["message"]
                .as_str()
                .unwrap_or("no message")
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned()),
        }
    }

    /// A command of the session.
    async fn command(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.ask(method, &format!("/session/{}{path}", self.session), &body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path} with {body}: {error}"))
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("POST", "/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    pub(crate) async fn go(&self, url: &str) {
        self.command("POST", "/url", json!({ "url": url })).await;
    }

    /// Runs a script and returns what it returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.command("POST", "/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Returns once a script returns true: of a browser there is no other sign.
    pub(crate) async fn until(&self, script: &str) {
        for _ in 0..300 {
            if self.run(script).await == true {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let text = self.text("body").await;
        panic!("within half a minute: {script}\nthe page says:\n{text}");
    }

    async fn element(&self, css: &str) -> String {
        let found = self.command("POST", "/element", json!({ "using": "css selector", "value": css })).await;
        format!("/element/{}", found[ELEMENT].as_str().unwrap_or_default())
    }

    /// The text that is seen.
    pub(crate) async fn text(&self, css: &str) -> String {
        let element = self.element(css).await;
        let text = self.command("GET", &format!("{element}/text"), Value::Null).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// The texts of a table, without its header.
    pub(crate) async fn rows(&self, table: &str) -> Vec<Vec<String>> {
        let script = format!(
            "return [...document.querySelector('{table}').tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
        );
        serde_json::from_value(self.run(&script).await).unwrap_or_default()
    }

    pub(crate) async fn click(&self, css: &str) {
        let element = self.element(css).await;
        self.command("POST", &format!("{element}/click"), json!({})).await;
    }

    /// Writes into a field, in place of what is there.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.command("POST", &format!("{element}/clear"), json!({})).await;
        self.command("POST", &format!("{element}/value"), json!({ "text": text })).await;
    }

    /// Presses keys, wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let press = |key: char| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        };
        let actions: Vec<_> = keys.chars().flat_map(press).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.command("POST", "/actions", json!({ "actions": [keyboard] })).await;
    }

    /// Role and name, as assistive technology gets them.
    pub(crate) async fn computed(&self, css: &str) -> (String, String) {
        let element = self.element(css).await;
        let text = async |what: &str| {
            let text = self.command("GET", &format!("{element}/{what}"), Value::Null).await;
            text.as_str().unwrap_or_default().to_owned()
        };
        (text("computedrole").await, text("computedlabel").await)
    }

    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Prefers a colour scheme.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
    }

    /// Errors that the browser has logged since the last call.
    pub(crate) async fn errors(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", json!({ "type": "browser" })).await;
        let entries = log.as_array().cloned().unwrap_or_default();
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Keeps a picture of the page in the directory that `READTHROUGH_SCREENSHOTS` names.
    pub(crate) async fn shoot(&self, name: &str) {
        let Ok(directory) = env::var("READTHROUGH_SCREENSHOTS") else { return };
        let shot = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        let file = format!("{directory}/{name}.png.base64");
        std::fs::write(&file, shot["data"].as_str().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without this the browser would outlive its driver.
        if let Ok(mut driver) = TcpStream::connect(("127.0.0.1", self.port)) {
            let request = format!(
                "DELETE /session/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                self.session
            );
            _ = driver.set_read_timeout(Some(Duration::from_secs(5)));
            _ = driver.write_all(request.as_bytes());
            _ = driver.read(&mut [0; 64]);
        }
        _ = self.driver.kill();
        _ = self.driver.wait();
    }
}
