//! The query of an analysis, asked of a real Prometheus: `make test-dashboard`.
#![cfg(all(feature = "operator", feature = "e2e"))]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use modelwright::operator::prometheus;

const DEADLINE: Duration = Duration::from_secs(300);

/// Does not outlive its test.
struct Prometheus {
    child: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Prometheus {
    async fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/prometheus.sh");
        let output = Command::new(script).stderr(Stdio::inherit()).output().expect("the script runs");
        let folder = String::from_utf8(output.stdout).expect("a path");
        let data = tempfile::tempdir().expect("a folder");
        let config = data.path().join("prometheus.yml");
        std::fs::write(&config, "{}\n").expect("a configuration");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let child = Command::new(Path::new(folder.trim()).join("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--web.route-prefix=/behind")
            .arg("--log.level=error")
            .spawn()
            .expect("it starts");
        let started = Self { child, address: format!("http://127.0.0.1:{port}/behind/"), _data: data };
        tokio::time::timeout(DEADLINE, async {
            while started.ask("vector(1)").await != Ok(1.0) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("Prometheus is ready");
        started
    }

    async fn ask(&self, query: &str) -> Result<f64, String> {
        prometheus::ask(&self.address, query, DEADLINE, true).await
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// SIGSTOP reaches each thread on its own: on a busy machine one went on, and answered.
    async fn stop(&self) {
        self.signal("-STOP");
        let threads = format!("/proc/{}/task", self.child.id());
        let stopped = || {
            std::fs::read_dir(&threads).expect("its threads").all(|thread| {
                let status = thread.and_then(|thread| std::fs::read_to_string(thread.path().join("status")));
                status.is_ok_and(|status| status.contains("State:\tT"))
            })
        };
        tokio::time::timeout(DEADLINE, async {
            while !stopped() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("every thread stops");
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_query_gives_one_number_or_says_why_not() {
    let prometheus = Prometheus::start().await;
    for (query, answer) in [
        ("vector(0.25) * 2", Ok(0.5)),
        ("scalar(vector(3))", Ok(3.0)),
        ("1e3", Ok(1000.0)),
        (r#"sum(label_replace(vector(7), "rev", "a&b=c d+e/ü", "", ""))"#, Ok(7.0)),
        ("vector(1) / 0", Ok(f64::INFINITY)),
        (r#"nothing_of_this_name{revision="fraud-r8"}"#, Err("the query finds nothing")),
        ("vector(0) / 0", Err("the query gives NaN")),
        (
            r#"vector(1) or label_replace(vector(2), "a", "b", "", "")"#,
            Err("the query gives 2 series instead of one"),
        ),
        (r#""text""#, Err("the query gives a string instead of a number")),
        ("up[5m]", Err("the query gives a matrix instead of a number")),
    ] {
        assert_eq!(prometheus.ask(query).await, answer.map_err(String::from), "{query}");
    }
    let said = prometheus.ask("sum(").await.expect_err("it does not parse");
    assert!(said.contains("parse error"), "{said}");
}

#[tokio::test]
async fn one_that_hangs_or_is_gone_is_given_up() {
    let mut prometheus = Prometheus::start().await;
    prometheus.stop().await;
    let short = Duration::from_millis(200);
    let said = prometheus::ask(&prometheus.address, "1", short, true).await.expect_err("it hangs");
    assert!(said.ends_with("gave no answer within 200ms"), "{said}");
    prometheus.signal("-CONT");
    assert_eq!(prometheus.ask("1").await, Ok(1.0));
    prometheus.child.kill().expect("it is killed");
    prometheus.child.wait().expect("it ends");
    let said = prometheus.ask("1").await.expect_err("it is gone");
    assert!(said.contains("refused"), "{said}");
    let said = prometheus::ask("http://no-such-host.invalid:9090", "1", DEADLINE, true).await;
    assert!(said.is_err());
    let web = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", web.local_addr().expect("an address"));
    let answers = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = web.accept().expect("a client");
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream
            .write_all(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n");
    });
    let said = prometheus::ask(&address, "1", DEADLINE, true).await.expect_err("no redirect is followed");
    assert_eq!(said, "HTTP status 302, and not what Prometheus answers");
    answers.join().expect("it answered");
}
