//! Where people sign in: codes that are good once and only for who asked, and codes typed on another device.
//!
//! Knows no tokens and no pages. Source: contract chatgpt-codex §10.1, §10.2; RFC 7636, section 4.6.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::time::UnixSeconds;

/// How long a code from the sign-in page is good.
const CODE_LIFETIME: Duration = Duration::from_secs(600);

/// How long a code for another device is good.
const DEVICE_LIFETIME: Duration = Duration::from_secs(900);

/// The verifier of every device sign-in: there the issuer makes it.
pub const DEVICE_VERIFIER: &str = "cv_forged_of_the_device_sign_in_0123456789abcdef";

/// The path that a device code is redeemed under.
const DEVICE_REDIRECT: &str = "/deviceauth/callback";

/// Codes of all sign-ins.
#[derive(Debug, Default)]
pub struct Desk {
    codes: Vec<Code>,
    devices: Vec<Device>,
    /// Answers every request for a device code as an account does that has switched it off.
    pub is_device_disabled: bool,
}

#[derive(Debug)]
struct Code {
    text: String,
    account: String,
    challenge: String,
    redirect_uri: String,
    until: UnixSeconds,
    is_spent: bool,
}

/// A sign-in on another device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Known to the program that asked only.
    pub id: String,
    /// What is typed.
    pub user_code: String,
    /// Until when it is good.
    pub until: UnixSeconds,
    /// What became of it.
    pub state: DeviceState,
}

/// What became of a sign-in on another device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Nobody has typed the code.
    Pending,
    /// The next question is told to come more slowly; then it is pending again.
    Hurried,
    /// Typed, and agreed to, by the account of this name.
    Approved(String),
    /// Typed, and refused.
    Denied,
    /// Its time is over.
    Expired,
}

/// A code with what has to fit it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The code.
    pub code: &'a str,
    /// What its challenge was made of.
    pub verifier: &'a str,
    /// Where it was sent.
    pub redirect_uri: &'a str,
}

impl Desk {
    /// Issues the code of a sign-in as `account`, for whoever knows the verifier of `challenge`.
    pub fn issue(
        &mut self,
        account: &str,
        challenge: &str,
        redirect_uri: &str,
        now: UnixSeconds,
    ) -> String {
        let text = format!("ac_forged_{account}_{:04}", self.codes.len());
        self.codes.push(Code {
            text: text.clone(),
            account: account.to_owned(),
            challenge: challenge.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            until: now.plus(CODE_LIFETIME),
            is_spent: false,
        });
        text
    }

    /// Takes a code and returns whose it is, or why it is not taken.
    pub fn redeem(&mut self, asked: &Asked<'_>, now: UnixSeconds) -> Result<String, &'static str> {
        let codes = self.codes.iter_mut();
        let code = codes
            .rev()
            .find(|code| code.text == asked.code)
            .ok_or("unknown code")?;
        if std::mem::replace(&mut code.is_spent, true) {
            return Err("the code has been used");
        }
        if code.until <= now {
            return Err("the code has expired");
        }
        let is_home = match code.redirect_uri.as_str() {
            DEVICE_REDIRECT => asked.redirect_uri.ends_with(DEVICE_REDIRECT),
            uri => uri == asked.redirect_uri,
        };
        if !is_home {
            return Err("redirect_uri does not match");
        }
        if URL_SAFE_NO_PAD.encode(Sha256::digest(asked.verifier)) != code.challenge {
            return Err("code_verifier does not match");
        }
        Ok(code.account.clone())
    }

    /// Makes every code that was issued so far too old.
    pub fn expire_codes(&mut self) {
        for code in &mut self.codes {
            code.until = UnixSeconds(0);
        }
    }

    /// Begins a sign-in on another device.
    pub fn start_device(&mut self, now: UnixSeconds) -> &Device {
        let number = self.devices.len();
        self.devices.push(Device {
            id: format!("deviceauth_forged_{number:04}"),
            user_code: format!("SIML-{number:05}"),
            until: now.plus(DEVICE_LIFETIME),
            state: DeviceState::Pending,
        });
        &self.devices[number]
    }

    /// Returns the sign-ins on other devices, oldest first.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Decides what becomes of a code that is still open. Says whether there was one.
    pub fn settle_device(&mut self, user_code: &str, state: DeviceState) -> bool {
        let mut devices = self.devices.iter_mut();
        let found = devices
            .find(|device| device.user_code == user_code && device.state == DeviceState::Pending);
        found.map(|device| device.state = state).is_some()
    }

    /// Answers the question of the program that began `id`: the state, and a code if it is approved.
    pub fn ask_device(
        &mut self,
        id: &str,
        user_code: &str,
        now: UnixSeconds,
    ) -> Option<(DeviceState, String)> {
        let mut devices = self.devices.iter_mut();
        let device = devices.find(|device| device.id == id && device.user_code == user_code)?;
        if device.until <= now {
            device.state = DeviceState::Expired;
        }
        let state = device.state.clone();
        if state == DeviceState::Hurried {
            device.state = DeviceState::Pending;
        }
        let code = match &state {
            DeviceState::Approved(account) => {
                let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(DEVICE_VERIFIER));
                self.issue(&account.clone(), &challenge, DEVICE_REDIRECT, now)
            }
            _ => String::new(),
        };
        Some((state, code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_795_457_000);
    const HOME: &str = "http://127.0.0.1:1455/auth/callback";

    #[test]
    fn a_code_is_good_once_and_for_who_asked() {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest("verifier"));
        for (verifier, redirect_uri, now, want) in [
            ("verifier", HOME, NOW, Ok("a".to_owned())),
            (
                "verifier",
                HOME,
                NOW.plus(CODE_LIFETIME),
                Err("the code has expired"),
            ),
            ("other", HOME, NOW, Err("code_verifier does not match")),
            (
                "verifier",
                "http://x/",
                NOW,
                Err("redirect_uri does not match"),
            ),
        ] {
            let mut desk = Desk::default();
            let code = desk.issue("a", &challenge, HOME, NOW);
            let asked = Asked {
                code: &code,
                verifier,
                redirect_uri,
            };
            assert_eq!(desk.redeem(&asked, now), want);
            assert_eq!(desk.redeem(&asked, now), Err("the code has been used"));
        }
        let asked = Asked {
            code: "ac_forged_a_0000",
            verifier: "verifier",
            redirect_uri: HOME,
        };
        assert_eq!(Desk::default().redeem(&asked, NOW), Err("unknown code"));
    }

    #[test]
    fn a_device_waits_until_it_is_settled() {
        let mut desk = Desk::default();
        let device = desk.start_device(NOW).clone();
        let ask = |desk: &mut Desk, now| desk.ask_device(&device.id, &device.user_code, now);
        assert_eq!(ask(&mut desk, NOW).unwrap().0, DeviceState::Pending);
        assert!(desk.settle_device(&device.user_code, DeviceState::Hurried));
        assert_eq!(ask(&mut desk, NOW).unwrap().0, DeviceState::Hurried);
        assert!(desk.settle_device(&device.user_code, DeviceState::Approved("a".to_owned())));
        assert!(!desk.settle_device(&device.user_code, DeviceState::Denied));
        let (state, code) = ask(&mut desk, NOW).unwrap();
        assert_eq!(state, DeviceState::Approved("a".to_owned()));
        let asked = Asked {
            code: &code,
            verifier: DEVICE_VERIFIER,
            redirect_uri: "https://auth.openai.com/deviceauth/callback",
        };
        assert_eq!(desk.redeem(&asked, NOW), Ok("a".to_owned()));
        let late = NOW.plus(DEVICE_LIFETIME);
        assert_eq!(ask(&mut desk, late).unwrap().0, DeviceState::Expired);
        assert_eq!(desk.ask_device("other", &device.user_code, NOW), None);
    }
}
