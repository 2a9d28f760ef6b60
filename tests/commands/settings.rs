//! Flag > environment > file > default, clear refusals, and what the log says of the settings.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use crate::common::client::{Client, JSON_RELIABLE};
use crate::common::dataset::{Dataset, group};
use crate::common::http;
use crate::common::server::{Server, program, refusal, run, serve};
use serde_json::json;

fn file(dataset: &Dataset, content: &str) -> PathBuf {
    let path = dataset.path().join("settings.toml");
    fs::write(&path, content).unwrap();
    path
}

fn prefix(server: &Server) -> String {
    server.get("/negotiate?key=k").json()["prefix"].as_str().unwrap().to_owned()
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let dataset = Dataset::usual();
    assert_eq!(prefix(&Server::start(&dataset)), "blue");
    let config = file(&dataset, "group-prefix = \"file\"\nmax_silent_groups = 7\n");
    let with_file = |more: &[(&str, &str)], args: &[&str]| {
        let mut command = serve(&dataset, more);
        Server::launch(command.arg("--config").arg(&config).args(args)).serving()
    };
    assert_eq!(prefix(&with_file(&[], &[])), "file");
    assert_eq!(prefix(&with_file(&[("WS_GROUP_PREFIX", "environment")], &[])), "environment");
    assert_eq!(prefix(&with_file(&[("WS_GROUP_PREFIX", "environment")], &["--group-prefix", "flag"])), "flag");
    let by_environment = Server::launch(serve(&dataset, &[]).env("FLOWCAST_CONFIG", &config)).serving();
    assert_eq!(prefix(&by_environment), "file");
}

#[test]
fn unknown_keys_and_bad_files_are_refused_by_name() {
    let dataset = Dataset::usual();
    for (content, words) in [
        ("group-prefx = \"x\"", vec!["settings.toml", "group-prefx", "expected the name of a setting"]),
        ("prefix = \"x\"", vec!["prefix", "did you mean group-prefix?"]),
        ("[hub]\nx = 1", vec!["hub"]),
        ("group-prefix = ", vec!["settings.toml", "expected TOML"]),
        ("client-buffer = \"many\"", vec!["--client-buffer", "many"]),
        ("client-buffer = 0", vec!["--client-buffer", "0"]),
    ] {
        let said = refusal(serve(&dataset, &[]).arg("--config").arg(file(&dataset, content)));
        for word in words {
            assert!(said.contains(word), "{word} in: {said}");
        }
    }
    let said = refusal(serve(&dataset, &[]).args(["--config", "/nowhere.toml"]));
    assert!(said.contains("/nowhere.toml: expected a readable settings file"), "{said}");
    let said = refusal(serve(&dataset, &[]).args(["--group-prefx", "x"]));
    assert!(said.contains("--group-prefx"), "{said}");
}

#[test]
fn bad_values_name_the_setting_the_value_and_what_is_accepted() {
    let dataset = Dataset::usual();
    let mut wrong = Vec::new();
    for (name, value, accepted) in [
        ("WS_STREAM_INTERVAL", "1", "500ms"),
        ("WS_STREAM_INTERVAL", "0s", "10us"),
        ("WS_CLIENT_BUFFER", "0", "1048576"),
        ("WS_CLIENT_BUFFER", "many", "1048576"),
        ("CACHE_MODE", "shuffle", "exhaust"),
        ("WS_ENABLED", "perhaps", "true"),
        ("DATA_DATE", "20251128", "2025-11-28"),
        ("WS_BIND_ADDRESS", "localhost", "0.0.0.0:8080"),
        ("PORT", "70000", "65535"),
        ("WS_GROUP_PREFIX", "a_b", "letters and digits"),
        ("WS_SHUTDOWN_TIMEOUT_SECONDS", "-1", "3600"),
        ("FLOWCAST_PROFILE", "2024-01", "2026-04"),
        ("FLOWCAST_ZSTD_LEVEL", "23", "22"),
        ("FLOWCAST_TRUSTED_PROXIES", "10.0.0.0/99", "10.0.0.0/8"),
        ("FLOWCAST_PONG_TIMEOUT_SECONDS", "10", "--ping-interval-seconds"),
        ("FLOWCAST_LOG_LEVEL", "a=b=c", "info"),
        ("FLOWCAST_LOG_LEVEL", "warning", "info"),
        ("FLOWCAST_LOG_LEVEL", "info,librdkafka", "info"),
        ("WS_ALLOWED_ORIGINS", "app.example", "https://app.example"),
        ("WS_ALLOWED_ORIGINS", "https://app.example/page", "https://app.example"),
        ("FLOWCAST_REQUEST_BODIES_BYTES", "1000", "--max-body-bytes (8388608)"),
        ("FLOWCAST_UNFINISHED_BYTES", "1000", "--max-message-bytes (524288)"),
        ("FLOWCAST_MAX_CONNECTIONS", "0", "1"),
        ("WEBSOCKET_MAX_CONNECTIONS", "0", "1"),
    ] {
        let said = refusal(&mut serve(&dataset, &[(name, value)]));
        for word in [name, value, accepted] {
            if !said.contains(word) {
                wrong.push(format!("{name}={value}: expected {word:?} in: {said}"));
            }
        }
        assert!(!said.contains("listening"), "nothing was opened: {said}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is said if a setting is set, and there is nothing in it: `Ok` if it starts all the same.
fn started_with(dataset: &Dataset, name: &str, value: &str) -> Result<(), String> {
    let mut command = serve(dataset, &[(name, value)]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if !line.is_empty() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    if line.is_empty() { Err(String::from_utf8_lossy(&output.stderr).into_owned()) } else { Ok(()) }
}

#[test]
fn a_setting_with_nothing_in_it_is_refused_by_name() {
    let dataset = Dataset::usual();
    let output = run(&mut program(&["settings", "--json"]));
    let settings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(settings.len() > 80);
    let mut wrong = Vec::new();
    for setting in settings {
        let (env, flag) = (setting["env"].as_str().unwrap(), setting["flag"].as_str().unwrap());
        for value in ["", " ", ",", " , "] {
            // A comma may be a secret, and a blank the name of a folder.
            let is_one_text = setting["type"] == "string" && setting["list"] == false;
            if value.contains(',') && is_one_text || !value.is_empty() && setting["type"] == "path" {
                continue;
            }
            match started_with(&dataset, env, value) {
                Ok(()) => wrong.push(format!("{env}={value:?} is taken")),
                Err(said) if !said.contains(flag) && !said.contains(env) => {
                    wrong.push(format!("{env}={value:?}: neither {env} nor {flag} in {said}"));
                }
                Err(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_setting_with_nothing_in_it_is_refused_in_a_file_and_as_a_flag_too() {
    let dataset = Dataset::usual();
    for (key, value) in
        [("allowed-origins", "\"\""), ("auth-audience", "\" \""), ("log-level", "\"\""), ("auth-secret", "\" \"")]
    {
        let path = file(&dataset, &format!("{key} = {value}\n"));
        let said = refusal(serve(&dataset, &[]).arg("--config").arg(path));
        assert!(said.contains(key), "{key}: {said}");
        let said = refusal(serve(&dataset, &[]).args([format!("--{key}"), " ".to_owned()]));
        assert!(said.contains(key), "{key}: {said}");
    }
}

#[test]
fn levels_of_targets_leave_the_others_as_they_are() {
    let server =
        Server::with(&Dataset::usual(), &[("FLOWCAST_LOG_LEVEL", "librdkafka=warn"), ("WS_AUTH_SECRET", "short")]);
    assert!(server.log().contains("WS_AUTH_SECRET is short"), "{}", server.log());
}

#[test]
fn a_negative_zstd_level_is_a_value() {
    let server = Server::launch(serve(&Dataset::usual(), &[]).args(["--zstd-level", "-7"])).serving();
    Client::open(&server, JSON_RELIABLE).joined(&["SPX"]).data().payload();
}

fn the_line<'a>(log: &'a str, words: &str) -> &'a str {
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(words)).collect();
    let [line] = lines[..] else { panic!("expected one line with {words:?} in\n{log}") };
    line
}

const CHANGED: &str = "settings that differ from their defaults";

#[test]
fn the_effective_settings_are_logged_once_with_their_sources() {
    let dataset = Dataset::usual();
    let mut command = serve(&dataset, &[("WS_CLIENT_BUFFER", "77"), ("FLOWCAST_LOG_LEVEL", "debug")]);
    let config = file(&dataset, "max-silent-groups = 7\n");
    let server = Server::launch(command.args(["--group-prefix", "flag", "--config"]).arg(config)).serving();
    let log = server.log();
    let (changed, all) = (the_line(&log, CHANGED), the_line(&log, "all settings"));
    for setting in [
        "client-buffer=77 (environment)",
        "group-prefix=flag (flag)",
        "max-silent-groups=7 (file",
        "interval=20ms (environment)",
    ] {
        assert!(changed.contains(setting) && all.contains(setting), "{setting} in {changed}\n{all}");
    }
    let default = "shutdown-timeout-seconds=10 (";
    assert!(!changed.contains(default) && all.contains(default), "{changed}\n{all}");
}

#[test]
fn at_info_the_log_shows_only_the_settings_that_differ_from_their_defaults() {
    let dataset = Dataset::usual();
    let config = file(&dataset, "max-silent-groups = 7\nshutdown-timeout-seconds = 10\n");
    let settings = [
        ("WS_CLIENT_BUFFER", "77"),
        ("WS_GROUP_PREFIX", "blue"),
        ("WS_AUTH_SECRET", "at-least-32-bytes-of-a-secret..."),
    ];
    let server = Server::launch(serve(&dataset, &settings).arg("--config").arg(config)).serving();
    let log = server.log();
    let line = the_line(&log, CHANGED);
    assert!(!log.contains("all settings"), "{log}");
    let listed = line.split_once("settings=").expect("a list").1.trim_matches('"');
    let flags: Vec<&str> = listed.split(", ").map(|setting| setting.split_once('=').unwrap().0).collect();
    assert_eq!(flags, ["bind", "data-dir", "interval", "max-silent-groups", "client-buffer", "auth-secret"], "{line}");
    assert!(line.contains("auth-secret=*** (environment)"), "{line}");
    assert!(line.len() < 500, "short: {line}");
}

#[test]
fn settings_as_json_are_those_of_the_help_with_their_defaults() {
    let output = run(&mut program(&["settings", "--json"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let settings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(settings.len() > 60, "{} settings", settings.len());
    let help = String::from_utf8(run(&mut program(&["serve", "--help"])).stdout).unwrap();
    let told: HashSet<&str> = help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap()).collect();
    let listed: HashSet<&str> = settings.iter().map(|setting| setting["env"].as_str().unwrap()).collect();
    assert_eq!(listed, told, "the same settings as the help");
    let of = |env: &str| settings.iter().find(|setting| setting["env"] == env).unwrap_or_else(|| panic!("{env}"));
    for (env, expected) in [
        ("PORT", json!({"group": "Listening", "flag": "--port", "key": "port", "type": "integer", "default": "8080"})),
        ("WS_STREAM_INTERVAL", json!({"group": "Replay", "type": "duration", "default": "1s", "list": false})),
        ("CACHE_MODE", json!({"type": "choice", "choices": ["rotation", "exhaust"], "default": "rotation"})),
        ("WS_ENABLED", json!({"type": "boolean", "default": "true", "value_name": "BOOL", "choices": []})),
        ("DATA_DIR", json!({"type": "path", "default": "./data", "secret": false})),
        ("WS_ALLOWED_ORIGINS", json!({"type": "string", "list": true, "default": null})),
        ("WS_AUTH_SECRET", json!({"type": "string", "secret": true, "default": null})),
        ("WS_KAFKA_SASL_PASSWORD", json!({"secret": true})),
        ("FLOWCAST_CONFIG", json!({"group": "Options", "flag": "--config", "key": null})),
    ] {
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&of(env)[key], value, "{key} of {env}");
        }
        assert!(!of(env)["help"].as_str().unwrap().is_empty(), "{env} says what it is");
    }
}

#[test]
fn settings_as_json_hold_no_value_of_the_environment() {
    let output = run(program(&["settings", "--json"]).env("WS_AUTH_SECRET", "hush-hush").env("PORT", "1234"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("hush-hush") && !text.contains("1234"), "{text}");
}

#[test]
fn an_unknown_variable_of_ours_is_warned_of() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_CLIENT_BUFER", "1")]);
    let log = server.log();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("FLOWCAST_CLIENT_BUFER")), "{log}");
}

#[test]
fn a_port_in_use_is_told_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dataset = Dataset::usual();
    let said = refusal(serve(&dataset, &[]).env("WS_BIND_ADDRESS", format!("127.0.0.1:{port}")));
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("another program"), "{said}");
    assert!(said.contains("--port"), "{said}");
    let said = refusal(serve(&dataset, &[]).env_remove("WS_BIND_ADDRESS").env("PORT", port.to_string()));
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
}

#[test]
fn a_port_that_is_only_taken_on_ipv6_is_in_use_too() {
    let Ok(taken) = TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: this machine has no IPv6");
        return;
    };
    let port = taken.local_addr().unwrap().port();
    let said = refusal(serve(&Dataset::usual(), &[]).env_remove("WS_BIND_ADDRESS").env("PORT", port.to_string()));
    assert!(said.contains(&format!("[::1]:{port}")), "{said}");
}

#[test]
fn an_address_without_a_host_means_every_interface() {
    let server = Server::with(&Dataset::usual(), &[("WS_BIND_ADDRESS", ":0")]);
    assert!(server.address.ip().is_unspecified());
    let loopback = ([127, 0, 0, 1], server.address.port()).into();
    assert_eq!(http::get(loopback, "/healthz").status, 200);
}

#[test]
fn keys_and_tokens_are_in_no_log_even_at_trace() {
    let settings =
        [("FLOWCAST_LOG_LEVEL", "trace"), ("GEXBOT_API_KEY", "key-of-tail"), ("WS_AUTH_SECRET", "secret-of-auth")];
    for format in ["text", "json"] {
        let mut settings = settings.to_vec();
        settings.push(("FLOWCAST_LOG_FORMAT", format));
        let server = Server::with(&Dataset::usual(), &settings);
        assert_eq!(server.get("/negotiate?key=key-in-query").status, 200);
        http::request(server.address, "GET", "/v2/negotiate", &[("Authorization", "Basic key-in-header")]);
        let path = "/client/hubs/orderflow?access_token=key-in-token:uuid-in-token";
        let client = Client::open_at(&server, path, JSON_RELIABLE).joined(&["SPX"]);
        let token = client.connected().token.clone().unwrap();
        let mut client = client.reset().recover().unwrap();
        client.data();
        client.socket.send_text("nonsense");
        client.rest();
        server.closed_until("protocol", 1);
        let log = server.logged("a client broke the protocol");
        assert!(log.contains(&client.connected().connection_id), "connections are logged by id");
        assert!(log.contains(&group("SPX")), "joins are logged at debug");
        for secret in
            ["key-in-query", "key-in-header", "key-in-token", "uuid-in-token", "key-of-tail", "secret-of-auth", &token]
        {
            assert!(!log.contains(secret), "{secret} in the {format} log:\n{log}");
        }
    }
}

#[test]
fn the_json_log_is_one_object_a_line() {
    let server = Server::with(&Dataset::usual(), &[("FLOWCAST_LOG_FORMAT", "json")]);
    let log = server.log();
    assert!(log.lines().count() > 2);
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(object["level"].is_string() && object["fields"].is_object(), "{line}");
    }
}

#[test]
fn help_names_every_setting_of_the_table() {
    let output = run(&mut program(&["serve", "--help"]));
    let help = String::from_utf8(output.stdout).unwrap();
    for name in [
        "PORT",
        "WS_BIND_ADDRESS",
        "DATA_DIR",
        "DATA_DATE",
        "WS_ENABLED",
        "WS_STREAM_INTERVAL",
        "WS_GROUP_PREFIX",
        "CACHE_MODE",
        "WS_CLIENT_BUFFER",
        "FLOWCAST_CLIENT_BUFFER_BYTES",
        "WS_SHUTDOWN_TIMEOUT_SECONDS",
        "WS_AUTH_SECRET",
        "WS_ALLOWED_ORIGINS",
        "WS_KAFKA_BROKERS",
        "WS_KAFKA_TOPICS",
        "WS_KAFKA_GROUP_ID",
        "WEBSOCKET_ENABLED",
        "WEBSOCKET_PING_INTERVAL",
        "WEBSOCKET_PRICE_UPDATE_INTERVAL",
        "WEBSOCKET_PORTFOLIO_UPDATE_INTERVAL",
        "WEBSOCKET_MAX_CONNECTIONS",
        "WEBSOCKET_AUTO_SUBSCRIBE",
    ] {
        assert!(help.contains(&format!("[env: {name}")), "{name} in the help");
    }
}
