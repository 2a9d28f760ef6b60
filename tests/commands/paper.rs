//! Whatever the tree cites is in the tree: files, sections of pages, relative links.
//!
//! A citation is a path below `docs/`, `benches/` or `examples/`, or a page at the root; section titles
//! may follow it in quotes, as in: `docs/streams.md`, "Connecting", "Channels". In pages, paths of the
//! source are citations too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// The pages at the root.
const ROOT_PAGES: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"];

/// Files that are read: text that people write.
const EXTENSIONS: [&str; 15] =
    ["rs", "md", "toml", "py", "mjs", "js", "html", "css", "yml", "yaml", "sh", "cfg", "proto", "ts", "txt"];

/// Folders that a walk does not enter: what is made or fetched.
const MADE: [&str; 6] = ["target", "node_modules", ".git", "__pycache__", "corpus", "artifacts"];

/// A file of the tree: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_markdown(&self) -> bool {
        is_page(&self.path)
    }

    /// The text as one line, without the marks of comments at the beginnings of its lines.
    fn flowing(&self) -> String {
        let bare = |line: &str| line.trim_start().trim_start_matches(['/', '!', '#', '*']).trim().to_owned();
        self.text.lines().map(bare).collect::<Vec<_>>().join(" ")
    }
}

fn is_page(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "md")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What git tracks; in a source archive, which has no git, everything that is not made.
fn paths() -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let listed = listed.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    let listed = String::from_utf8(listed).expect("file names are UTF-8");
    let tracked: Vec<PathBuf> = listed.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    if !tracked.is_empty() {
        return tracked;
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.iter().map(|path| path.strip_prefix(root()).expect("the walk began there").to_owned()).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the tree can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() {
            found.push(path);
        } else if path.is_dir() && !MADE.contains(&name.as_str()) {
            walk(&path, found);
        }
    }
}

fn sources() -> Vec<Source> {
    let is_text = |path: &PathBuf| match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) => EXTENSIONS.contains(&extension),
        None => path.ends_with("Makefile") || path.ends_with("Dockerfile"),
    };
    // A tracked file that was deleted is still listed: it has no text.
    let read = |path: PathBuf| Some(Source { text: fs::read_to_string(root().join(&path)).ok()?, path: shown(&path) });
    paths().into_iter().filter(is_text).filter_map(read).collect()
}

fn shown(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The lines of a page that are not inside a block of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

fn headings(text: &str) -> BTreeSet<String> {
    let title = |line: &str| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#').trim().replace('`', ""));
    prose(text).filter_map(title).collect()
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

const fn is_of_a_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/')
}

/// The paths in a text, each with what follows it.
fn paths_in(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c| !is_of_a_path(c));
        let end = rest.find(|c| !is_of_a_path(c)).unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches('.');
        rest = &rest[end..];
        (end > 0).then_some((path, rest))
    })
}

/// The quoted titles that follow a citation: `, "One", "Two" and "Three"`.
fn titles(after: &str) -> Vec<&str> {
    let mut titles = Vec::new();
    let mut rest = after.trim_start_matches(['`', ')']);
    while let Some(title) = [", \"", " and \""].iter().find_map(|opening| rest.strip_prefix(opening)) {
        let Some((title, behind)) = title.split_once('"') else { break };
        titles.push(title);
        rest = behind;
    }
    titles
}

fn is_citation(path: &str) -> bool {
    ["docs/", "benches/", "examples/"].iter().any(|folder| path.starts_with(folder)) || ROOT_PAGES.contains(&path)
}

/// Paths that a page cites besides; in code they are relative to other folders as often as not.
fn is_source_path(path: &str) -> bool {
    ["src/", "tests/", "loadtest/", "fuzz/", "proto/", "deploy/"].iter().any(|folder| path.starts_with(folder))
}

/// `folder/../page` without the detour.
fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// The headings of every page.
fn pages(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let pages = sources.iter().filter(|source| source.is_markdown());
    pages.map(|page| (page.path.clone(), headings(&page.text))).collect()
}

/// What is wrong with the titles cited of a page; counts them.
fn check_titles(
    who: &str,
    page: &str,
    after: &str,
    pages: &BTreeMap<String, BTreeSet<String>>,
    found: &mut usize,
) -> Vec<String> {
    let cited = if is_page(page) { titles(after) } else { Vec::new() };
    *found += cited.len();
    let is_there = |title: &str| pages.get(page).is_some_and(|headings| headings.contains(title));
    cited.into_iter().filter(|t| !is_there(t)).map(|t| format!("{who}: {page} has no section \"{t}\"")).collect()
}

#[test]
fn every_file_and_section_that_is_cited_exists() {
    let sources = sources();
    let pages = pages(&sources);
    let (mut files, mut sections, mut wrong) = (0, 0, Vec::new());
    for source in &sources {
        let text = source.flowing();
        let is_cited = |path: &str| is_citation(path) || source.is_markdown() && is_source_path(path);
        for (path, after) in paths_in(&text).filter(|(path, _)| is_cited(path)) {
            files += 1;
            // A page of a subproject names its own files.
            let beside = Path::new(&source.path).parent().unwrap_or(Path::new("")).join(path);
            let exists = root().join(path).exists() || is_source_path(path) && root().join(beside).exists();
            if !exists {
                wrong.push(format!("{}: {path} does not exist", source.path));
            }
            wrong.extend(check_titles(&source.path, path, after, &pages, &mut sections));
        }
    }
    assert!(wrong.is_empty(), "expected every citation to lead somewhere, got:\n{}", wrong.join("\n"));
    assert!(files >= 60 && sections >= 30, "found only {files} citations with {sections} sections: is the tree there?");
}

#[test]
fn every_relative_link_of_a_page_resolves() {
    let sources = sources();
    let pages = pages(&sources);
    let (mut links, mut sections, mut wrong) = (0, 0, Vec::new());
    for source in sources.iter().filter(|source| source.is_markdown()) {
        let text = prose(&source.text).collect::<Vec<_>>().join(" ");
        for link in text.split("](").skip(1) {
            let Some((target, after)) = link.split_once(')') else { continue };
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&source.path).parent().unwrap_or(Path::new(""));
            let page = if path.is_empty() { source.path.clone() } else { shown(&normal(&folder.join(path))) };
            if !root().join(&page).exists() {
                wrong.push(format!("{}: {target} leads to nothing", source.path));
                continue;
            }
            let headings = pages.get(&page).into_iter().flatten();
            if !fragment.is_empty() && !headings.map(|heading| anchor(heading)).any(|known| known == fragment) {
                wrong.push(format!("{}: {page} has no anchor #{fragment}", source.path));
            }
            wrong.extend(check_titles(&source.path, &page, after, &pages, &mut sections));
        }
    }
    assert!(wrong.is_empty(), "expected every link to resolve, got:\n{}", wrong.join("\n"));
    assert!(links >= 30 && sections >= 5, "found only {links} links with {sections} sections: is the tree there?");
}

#[test]
fn nothing_is_cited_that_a_reader_cannot_open() {
    let is_number = |word: &str| word.trim_start_matches('#').starts_with(|c: char| c.is_ascii_digit());
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !source.path.ends_with("commands/paper.rs")) {
        let text = source.flowing();
        let outside = |path: &&str| path.starts_with("wire/") && is_page(path) || path.starts_with("DESIGN");
        wrong.extend(paths_in(&text).map(|(path, _)| path).filter(outside).map(|p| format!("{}: {p}", source.path)));
        let words: Vec<&str> = text.split_whitespace().collect();
        let issue = |pair: &&[&str]| {
            let word = pair[0].trim_start_matches(|c: char| !c.is_alphanumeric());
            ["issue", "issues"].iter().any(|name| word.eq_ignore_ascii_case(name)) && is_number(pair[1])
        };
        let issues = words.windows(2).filter(issue);
        wrong.extend(issues.map(|pair| format!("{}: {} {}", source.path, pair[0], pair[1])));
    }
    assert!(wrong.is_empty(), "expected citations of files in the repository, got:\n{}", wrong.join("\n"));
}

#[test]
fn every_page_below_docs_is_named_by_another_file() {
    let sources = sources();
    let docs: Vec<&Source> =
        sources.iter().filter(|source| source.is_markdown() && source.path.starts_with("docs/")).collect();
    assert!(docs.len() >= 10, "found only {} pages below docs/", docs.len());
    for page in docs {
        let name = Path::new(&page.path).file_name().and_then(|name| name.to_str()).expect("a page has a name");
        let named = sources.iter().any(|other| other.path != page.path && other.text.contains(name));
        assert!(named, "{}: no other file leads to this page", page.path);
    }
}

#[test]
fn the_loop_of_a_shard_is_one_short_file() {
    const FILE: &str = "src/server/shard/event_loop.rs";
    let sources = sources();
    let of_shard = |source: &&Source| source.text.lines().any(|line| line.starts_with("impl Shard "));
    let files: Vec<&str> = sources.iter().filter(of_shard).map(|source| source.path.as_str()).collect();
    assert_eq!(files, [FILE]);
    let lines = sources.iter().find(|source| source.path == FILE).expect("it is in the tree").text.lines().count();
    assert!(lines <= 200, "{FILE}: expected at most 200 lines, got {lines}");
}

#[test]
fn a_file_of_the_source_can_be_told_by_its_name() {
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in paths().iter().filter(|path| path.starts_with("src")) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("file names are UTF-8");
        named.entry(name.to_owned()).or_default().push(shown(path));
    }
    assert!(named.len() > 100, "found only {} files", named.len());
    named.retain(|name, paths| name != "mod.rs" && paths.len() > 1);
    assert!(named.is_empty(), "expected one file of each name, got {named:?}");
}

#[test]
fn titles_follow_a_citation_in_quotes() {
    let text = "see `docs/streams.md`, \"Connecting\", \"Channels\" and \"Publishing\"; or not";
    let (path, after) = paths_in(text).find(|(path, _)| is_citation(path)).unwrap();
    assert_eq!((path, titles(after)), ("docs/streams.md", vec!["Connecting", "Channels", "Publishing"]));
    assert!(titles(" says \"more\"").is_empty());
    assert_eq!(anchor("What `GET /ws` says"), "what-get-ws-says");
    assert_eq!(shown(&normal(Path::new("docs/protocols/../streams.md"))), "docs/streams.md");
}
