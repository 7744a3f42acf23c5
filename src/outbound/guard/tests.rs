//! Every spelling of a forbidden address is refused, and the allow list opens only what it names.

use super::*;
use proptest::prelude::*;

fn closed() -> Guard {
    Guard::default()
}

fn open(networks: &[&str]) -> Guard {
    Guard::new(
        networks
            .iter()
            .map(|network| network.parse().unwrap())
            .collect(),
    )
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn every_range_outside_the_global_internet_is_refused_to_its_edges() {
    let ranges = [
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("100.100.100.200", "100.100.100.200"),
        ("127.0.0.0", "127.255.255.255"),
        ("168.63.129.16", "168.63.129.16"),
        ("169.254.169.254", "169.254.170.2"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
        ("224.0.0.0", "239.255.255.255"),
        ("240.0.0.0", "255.255.255.255"),
        ("::", "::1"),
        ("::2", "::ffff:ffff"),
        ("::ffff:0:0:0", "::ffff:0:ffff:ffff"),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
        ("100::", "100::1:ffff:ffff:ffff:ffff"),
        ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("5f00::", "5f00:ffff::"),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fd00:ec2::254", "fd00:ec2::254"),
        ("fe80::", "febf::"),
        ("fec0::", "feff::"),
        ("ff00::", "ff02::1"),
    ];
    for (first, last) in ranges {
        for text in [first, last] {
            assert!(
                closed().check(address(text)).is_err(),
                "{text} was let through"
            );
        }
    }
}

#[test]
fn neighbours_of_refused_ranges_and_well_known_hosts_are_reachable() {
    let reachable = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::",
        "2001:4860:4860::8888",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "3ffe::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ];
    for text in reachable {
        assert_eq!(closed().check(address(text)), Ok(()), "{text}");
    }
}

#[test]
fn an_ipv4_address_in_any_ipv6_wrapping_is_refused_by_its_own_name() {
    let wrapped = [
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2a00::5efe:7f00:1",
        "2a00::200:5efe:7f00:1",
        "fe80::5efe:7f00:1",
    ];
    for text in wrapped {
        let blocked = closed().check(address(text)).unwrap_err();
        assert_eq!(
            (blocked.address, blocked.range_name),
            (address(text), "a loopback address"),
            "{text}"
        );
    }
    assert!(closed().check(address("64:ff9b:1::7f00:1")).is_err());
    assert!(
        closed().check(address("2001:0:7f00:1::")).is_err(),
        "Teredo"
    );
    assert!(
        closed().check(address("2002:808:808::")).is_err(),
        "6to4 of a public address"
    );
    assert!(
        closed().check(address("::8.8.8.8")).is_err(),
        "compatible form of a public address"
    );
    assert_eq!(
        closed().check(address("2a00::5efe:808:808")),
        Ok(()),
        "looks like ISATAP of a public address"
    );
}

#[test]
fn the_allow_list_opens_what_it_names_and_nothing_beside_it() {
    let guard = open(&["10.1.0.0/16", "fd12::/16"]);
    for text in [
        "10.1.0.1",
        "::ffff:10.1.0.1",
        "64:ff9b::10.1.0.1",
        "fd12::1",
    ] {
        assert_eq!(guard.check(address(text)), Ok(()), "{text}");
    }
    for text in [
        "10.2.0.1",
        "::ffff:10.2.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "fd13::1",
        "2002:a01:1::",
        "::10.1.0.1",
    ] {
        assert!(guard.check(address(text)).is_err(), "{text}");
    }
    assert!(
        guard
            .check_url(&Url::parse("http://localhost/").unwrap())
            .is_err()
    );
    assert_eq!(
        open(&["127.0.0.0/8"]).check_url(&Url::parse("http://foo.localhost./").unwrap()),
        Ok(())
    );
    assert_eq!(
        open(&["::1/128"]).check_url(&Url::parse("http://localhost/").unwrap()),
        Ok(())
    );
    assert_eq!(
        open(&["64:ff9b:1::/48"]).check(address("64:ff9b:1::1")),
        Ok(())
    );
}

#[test]
fn every_spelling_of_a_forbidden_host_is_refused() {
    let urls = [
        "http://2130706433",
        "http://0x7f.1",
        "http://0177.0.0.1",
        "http://127.1",
        "http://0/",
        "http://127.0.0.1.",
        "http://0x7f000001/",
        "http://[::1]",
        "http://[::]",
        "http://[::ffff:127.0.0.1]",
        "http://[::ffff:7f00:1]",
        "http://[::127.0.0.1]",
        "http://[64:ff9b::7f00:1]",
        "http://[64:ff9b:1::7f00:1]",
        "http://[2002:7f00:1::]",
        "http://[2001:0:53aa:64c:0:fbff:80ff:fffe]",
        "http://[fe80::5efe:7f00:1]",
        "http://[fe80::1%25eth0]",
        "http://[fec0::1]",
        "http://[fd00:ec2::254]",
        "http://169.254.169.254",
        "http://169.254.170.2",
        "http://168.63.129.16",
        "http://100.100.100.200",
        "http://localhost",
        "http://localhost.",
        "http://LOCALHOST",
        "http://foo.localhost",
        "http://foo.LOCALHOST./",
        "http://１２７.０.０.１",
        "http://①②⑦.⓪.⓪.①",
        "http://127。0。0。1",
        "http://a@127.0.0.1",
        "http://a:b@ok.com",
        "http://:b@ok.com",
        "http://127.0.0.1#@ok.com",
        "http://127.0.0.1?@ok.com",
        "http://ok.com\\@127.0.0.1",
        "http://ok.com\t/",
        "http://ok.com\r\n/",
        "http://ok.com/\nHost: x",
        "\thttp://ok.com/",
        "http://ok.com/a b",
        "http:/\\ok.com",
        "file:///etc/passwd",
        "gopher://ok.com/",
        "ftp://ok.com/",
        "unix:/run/docker.sock",
        "javascript:alert(1)",
        "data:text/plain,x",
        "//ok.com/",
        "ok.com",
        "",
        "http://",
        "https://1.2.3.4.5/",
        "http://256.256.256.256/",
        "http://[::1",
        "http://ok.com:99999/",
    ];
    for text in urls {
        assert!(
            closed().parse_url(text).is_err(),
            "{text:?} was let through"
        );
    }
}

#[test]
fn ordinary_targets_are_accepted() {
    for text in [
        "https://hooks.example.com/in?token=a%20b",
        "http://8.8.8.8:8080/",
        "https://[2606:4700::1111]:443/x",
        "https://bücher.example/",
        "https://notlocalhost/",
        "https://localhost.example.com/",
        "https://ok.com/a@b:c",
    ] {
        assert!(closed().parse_url(text).is_ok(), "{text}");
    }
}

#[test]
fn a_url_may_have_2048_characters_and_no_more() {
    let url = |length: usize| {
        format!(
            "https://ok.com/{}",
            "a".repeat(length - "https://ok.com/".len())
        )
    };
    assert!(closed().parse_url(&url(2048)).is_ok());
    assert_eq!(
        closed().parse_url(&url(2049)),
        Err(UrlRefused::TooLong(2049))
    );
    // Short as written, too long once it is percent-encoded.
    assert!(matches!(
        closed().parse_url(&format!("https://ok.com/{}", "ä".repeat(500))),
        Err(UrlRefused::TooLong(_))
    ));
}

#[test]
fn refusals_say_how_to_mend_them() {
    let message = |text| closed().parse_url(text).unwrap_err().to_string();
    assert_eq!(
        message("http://10.0.0.5/x?token=abc"),
        "refused: 10.0.0.5 is a private address; add it to outbound.allow_networks if it may be reached"
    );
    assert!(message("http://localhost/").contains("outbound.allow_networks"));
    assert!(message("ftp://ok.com/").contains("http or https"));
    assert!(message("http://user:pass@ok.com/").contains("auth"));
    assert!(!message("http://user:pass@ok.com/").contains("pass@"));
    assert!(message("http://ok.com/\n").contains("\\n"));
}

proptest! {
    #[test]
    fn wrapping_an_address_never_opens_it(bits in any::<u32>(), site in any::<u64>()) {
        let v4 = Ipv4Addr::from_bits(bits);
        let [a, b, c, d] = v4.octets().map(u128::from);
        let low = a << 24 | b << 16 | c << 8 | d;
        let wrappings = [
            low,
            0xffff_u128 << 32 | low,
            0xffff_u128 << 48 | low,
            0x64_ff9b_u128 << 96 | low,
            0x2002_u128 << 112 | low << 80,
            u128::from(site) << 64 | 0x5efe_u128 << 32 | low,
        ];
        if closed().check(IpAddr::V4(v4)).is_err() {
            for wrapped in wrappings {
                prop_assert!(closed().check(IpAddr::V6(Ipv6Addr::from_bits(wrapped))).is_err());
            }
        }
    }

    #[test]
    fn the_ranges_agree_with_the_ipnet_crate(bits in any::<u32>()) {
        let v4 = Ipv4Addr::from_bits(bits);
        let refused = REFUSED_V4.iter().any(|(network, length, _)| {
            ipnet::Ipv4Net::new(*network, u8::try_from(*length).unwrap()).unwrap().contains(&v4)
        });
        prop_assert_eq!(closed().check(IpAddr::V4(v4)).is_err(), refused);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}", host in "[0-9a-fx.:\\[\\]%]{0,30}") {
        let _ = closed().parse_url(&text);
        let _ = closed().parse_url(&format!("http://{host}/"));
    }
}
