//! The verdict on the live page of a flowcast (`--report-to`), beside the figures of the server that was tested.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::cli::OutputArgs;
use crate::http::{Http, HttpError, Trust};

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is posted: the figures without the facts, which are too many.
#[derive(Serialize)]
struct Posted<'a, S> {
    swarm: &'static str,
    summary: &'a S,
}

/// Posts the verdict, if that was asked for.
pub fn show(summary: &impl Serialize, output: &OutputArgs, trust: &Trust) -> Result<(), HttpError> {
    let Some(url) = &output.report_to else { return Ok(()) };
    let mut http = Http::new(trust, PATIENCE);
    if let Some(token) = &output.control_token {
        http = http.with_authorization(format!("Bearer {token}"));
    }
    let url = format!("{}/live/verdict", url.trim_end_matches('/'));
    let posted = Posted { swarm: env!("CARGO_PKG_VERSION"), summary };
    http.post_json::<Value>(&url, &posted).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_summary_is_posted_with_the_token() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let (mut request, mut buffer) = (String::new(), [0; 4096]);
            while !request.ends_with('}') {
                let length = client.read(&mut buffer).unwrap();
                request.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            }
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"at\":1}").unwrap();
            request
        });
        let mut output = OutputArgs {
            json: None,
            report: None,
            report_to: Some(url),
            control_token: Some("a-token".to_owned()),
            quiet: true,
        };
        show(&json!({ "faults": 0 }), &output, &Trust::default()).unwrap();
        let request = server.join().unwrap();
        assert!(request.starts_with("POST /live/verdict HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains("authorization: bearer a-token"), "{request}");
        assert!(request.contains(r#""summary":{"faults":0}"#), "{request}");
        output.report_to = None;
        assert!(show(&json!({}), &output, &Trust::default()).is_ok(), "nothing was asked for");
    }
}
