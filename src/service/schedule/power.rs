//! Whether the machine runs on battery.

use std::path::Path;

use crate::service::machine::Machine;

/// Whether the machine runs on battery; `false` if that cannot be found out.
pub fn on_battery(machine: &dyn Machine) -> bool {
    if cfg!(target_os = "macos") {
        let output = machine.program("pmset").args(["-g", "batt"]).output();
        return output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("'Battery Power'"));
    }
    supplies_say_battery(Path::new("/sys/class/power_supply"))
}

/// On Linux: whether some battery discharges and no mains supply is connected. Other systems have no such folder.
fn supplies_say_battery(folder: &Path) -> bool {
    let (mut mains, mut discharging) = (false, false);
    for entry in crate::folder::entries(folder).into_iter().flatten().flatten() {
        let read =
            |name: &str| crate::ownfile::read_text(&entry.path().join(name)).unwrap_or_default().trim().to_owned();
        match read("type").as_str() {
            "Mains" | "USB" => mains |= read("online") == "1",
            // Batteries of mice and keyboards do not count.
            "Battery" if read("scope") != "Device" => discharging |= read("status") == "Discharging",
            _ => {}
        }
    }
    discharging && !mains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_battery_that_feeds_the_machine_counts() {
        let check = |supplies: &[&[(&str, &str)]], expected| {
            let folder = tempfile::tempdir().unwrap();
            for (number, supply) in supplies.iter().enumerate() {
                let below = folder.path().join(number.to_string());
                std::fs::create_dir(&below).unwrap();
                supply.iter().for_each(|(name, text)| std::fs::write(below.join(name), format!("{text}\n")).unwrap());
            }
            assert_eq!(supplies_say_battery(folder.path()), expected, "{supplies:?}");
        };
        let battery = &[("type", "Battery"), ("status", "Discharging")][..];
        check(&[], false);
        check(&[battery], true);
        check(&[battery, &[("type", "Mains"), ("online", "1")]], false);
        check(&[battery, &[("type", "Mains"), ("online", "0")]], true);
        check(&[&[("type", "Battery"), ("status", "Charging")]], false);
        check(&[&[("type", "Battery"), ("status", "Discharging"), ("scope", "Device")]], false);
    }
}
