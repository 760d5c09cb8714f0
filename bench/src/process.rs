//! Processes that end with the one that started them, however that ends. It must not know what they are.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Clock ticks a second in /proc (Linux fixes it for programs, whatever its own rate).
const TICKS_PER_SECOND: u64 = 100;
/// How often it is looked whether a process has ended.
const POLL: Duration = Duration::from_millis(5);

/// Waits until its input ends, which it does with the process that holds the other end, and kills `$1`; or is
/// told not to.
const GUARD: &str = r#"trap : INT TERM HUP; read -r word; [ "$word" = leave ] || kill -s KILL -- "$1""#;

/// Kills something when it is dropped, and when the process that holds it ends.
pub struct Guard {
    shell: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    /// Guards a process.
    pub fn over(pid: u32) -> Result<Guard> {
        Guard::over_target(&pid.to_string())
    }

    /// Guards a process, or with a sign before its id the group that it leads.
    fn over_target(target: &str) -> Result<Guard> {
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard", target]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut shell = command.spawn().context("starting a shell")?;
        let input = shell.stdin.take();
        Ok(Guard { shell, input })
    }

    /// The process has ended: its id may be another's by now.
    fn leave(&mut self) {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(b"leave\n");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.shell.wait();
    }
}

/// A child process and those that it starts. They are killed when this is dropped.
pub struct Process {
    pub child: Child,
    guard: Guard,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Result<Process> {
        let program = Path::new(command.get_program()).display().to_string();
        let mut child = command.process_group(0).spawn().with_context(|| format!("starting {program}"))?;
        match Guard::over_target(&format!("-{}", child.id())) {
            Ok(guard) => Ok(Process { child, guard }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let kill = format!("kill -{name} {}", self.id());
        let status = Command::new("sh").args(["-c", &kill]).status().context("starting a shell")?;
        ensure!(status.success(), "`{kill}` failed");
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("the process does not end within {} s", limit.as_secs());
            }
            std::thread::park_timeout(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = format!("kill -s KILL -- -{} 2>/dev/null", self.id());
        let _ = Command::new("sh").args(["-c", &group]).status();
        let _ = self.child.wait();
        self.guard.leave();
    }
}

/// CPU time that the threads of a process have used, in nanoseconds, to 10 ms.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    cpu(pid, 11..13)
}

/// The same with that of its children, those that have ended too.
pub fn cpu_ns_with_children(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // One that ends just now is counted with its parent a moment later.
    let children = children.split_whitespace().filter_map(|child| cpu(child.parse().ok()?, 11..15).ok());
    Ok(cpu(pid, 11..15)? + children.sum::<u64>())
}

/// The sum of some fields of /proc/PID/stat that are times: from 11 the process' own, user and system, and from
/// 13 those of its children that have ended.
fn cpu(pid: u32, fields: std::ops::Range<usize>) -> Result<u64> {
    let stat = proc(pid, "stat")?;
    // The name, in parentheses, may hold anything; fields after it are counted from the third.
    let all: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let times = all.get(fields).context("fields of /proc/PID/stat")?;
    let ticks = times.iter().map(|ticks| ticks.parse::<u64>()).sum::<Result<u64, _>>()?;
    Ok(ticks * (1_000_000_000 / TICKS_PER_SECOND))
}

/// Resident memory in bytes.
pub fn rss_bytes(pid: u32) -> Result<u64> {
    let status = proc(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
    Ok(kilobytes * 1024)
}

fn proc(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("reading {path}: has the server ended?"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    /// A process that does nothing for long.
    fn guarded() -> Process {
        Process::spawn(Command::new("sleep").arg("1000").stdin(Stdio::null())).unwrap()
    }

    fn is_there(pid: u32) -> bool {
        proc(pid, "stat").is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn a_process_ends_with_whoever_holds_it() {
        let process = guarded();
        let pid = process.id();
        assert!(is_there(pid) && cpu_ns(pid).unwrap() < 1_000_000_000 && rss_bytes(pid).unwrap() > 0);
        drop(process);
        assert!(!is_there(pid));
        // What it started, too.
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        drop(process);
        let pid = line.trim().parse().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while is_there(pid) {
            assert!(Instant::now() < end);
            std::thread::park_timeout(POLL);
        }
        // Without a chance to say so: all that happens is that the guard's input ends.
        let mut process = guarded();
        drop(process.guard.input.take());
        let status = process.wait(Duration::from_secs(20)).unwrap();
        assert!(!status.success());
    }

    #[test]
    fn a_process_that_ended_is_not_killed_again() {
        let mut process = Process::spawn(Command::new("true").stdin(Stdio::null())).unwrap();
        assert!(process.wait(Duration::from_secs(20)).unwrap().success());
        process.guard.leave();
        drop(process.guard.input.take());
        assert!(process.guard.shell.wait().unwrap().success());
    }
}
