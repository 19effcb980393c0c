"""Settings: precedence, where paths are anchored, what an error says, and that secrets stay secret."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from mm_platform.config import Settings, load_settings, load_venue_keys, write_default_toml
from mm_platform.core.errors import ConfigError
from mm_platform.core.instrument import InstrumentId


def _load(
    tmp_path: Path, toml: str | None = None, environ: dict[str, str] | None = None, overrides: dict[str, object] | None = None, name: str = "mm.toml"
) -> Settings:
    config = None
    if toml is not None:
        config = tmp_path / name
        config.write_text(toml)
    return load_settings(config, overrides or {}, environ=environ or {}, cwd=tmp_path)


def test_defaults_live_in_the_state_folder_below_the_working_directory(tmp_path: Path) -> None:
    settings = _load(tmp_path)
    assert settings.lake == tmp_path / ".mm" / "lake"
    assert settings.registry_uri == f"sqlite:///{tmp_path}/.mm/mlflow.db"
    assert settings.artifacts == tmp_path / ".mm" / "mlartifacts"
    assert settings.public_key == tmp_path / ".mm" / "keys" / "signing.pub"
    assert settings.instrument == "sim:BTC-USDT-PERP"
    assert settings.seed == 7
    assert len(settings.sweep.risk_aversions) == 8
    assert settings.sweep.thresholds[-1] is None
    assert len(settings.sweep.thresholds) == 6


def test_precedence_flag_environment_file_default(tmp_path: Path) -> None:
    toml = "seed = 1\n[risk]\nmax_order_notional = 100.0\n[live]\npoll_s = 3.0\n"
    environ = {"MM_SEED": "2", "MM_RISK__MAX_ORDER_NOTIONAL": "200"}
    assert _load(tmp_path, toml).seed == 1
    assert _load(tmp_path, toml, environ).seed == 2
    settings = _load(tmp_path, toml, environ, {"seed": 3})
    assert (settings.seed, settings.risk.max_order_notional, settings.live.poll_s, settings.mlflow.port) == (3, 200.0, 3.0, 5000)
    # a flag that was not given is no value
    assert _load(tmp_path, toml, environ, {"seed": None}).seed == 2


def test_the_file_in_the_working_directory_and_the_one_the_environment_names(tmp_path: Path) -> None:
    (tmp_path / "mm.toml").write_text("seed = 11\n")
    (tmp_path / "other.toml").write_text("seed = 12\n")
    assert load_settings(None, {}, environ={}, cwd=tmp_path).seed == 11
    assert load_settings(None, {}, environ={"MM_CONFIG": "other.toml"}, cwd=tmp_path).seed == 12
    with pytest.raises(ConfigError, match=r"no settings file .*absent\.toml"):
        load_settings(Path("absent.toml"), {}, environ={}, cwd=tmp_path)


def test_relative_paths_belong_to_where_they_were_written(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "mm.toml").write_text('lake = "data/lake"\nregistry_uri = "sqlite:///reg/../db/m.db"\n[live]\npublic_key = "pub.pem"\n')
    settings = load_settings(folder / "mm.toml", {"artifacts": "art"}, environ={}, cwd=tmp_path)
    assert settings.lake == folder / "data" / "lake"
    assert settings.registry_uri == f"sqlite:///{folder}/db/m.db"
    assert settings.public_key == folder / "pub.pem"
    assert settings.artifacts == tmp_path / "art"
    assert settings.state_dir == folder / ".mm"


def test_moving_the_state_folder_moves_what_was_not_placed_elsewhere(tmp_path: Path) -> None:
    settings = _load(tmp_path, environ={"MM_STATE_DIR": "state"}, overrides={"lake": tmp_path / "lake"})
    assert settings.registry_uri == f"sqlite:///{tmp_path}/state/mlflow.db"
    assert settings.lake == tmp_path / "lake"


def test_lists_and_tables_in_the_environment(tmp_path: Path) -> None:
    settings = _load(tmp_path, environ={"MM_SWEEP__RISK_AVERSIONS": "[0.1, 0.5]", "MM_RISK__PARAMETER_BOUNDS": "{ sigma = [0.1, 2.0] }"})
    assert settings.sweep.risk_aversions == (0.1, 0.5)
    assert settings.risk.parameter_bounds["sigma"] == (0.1, 2.0)


def test_one_bound_leaves_the_others_standing(tmp_path: Path) -> None:
    default = Settings().risk.parameter_bounds
    changed = _load(tmp_path, "[risk.parameter_bounds]\nsigma = [0.1, 2.0]\n").risk.parameter_bounds
    assert changed == {**default, "sigma": (0.1, 2.0)}


def test_never_is_always_among_the_thresholds(tmp_path: Path) -> None:
    assert _load(tmp_path, "[sweep]\nhedge_thresholds_units = [1.0, 2.0]\n").sweep.thresholds == (1.0, 2.0, None)


def test_a_limit_is_switched_off_by_the_word_and_only_where_allowed(tmp_path: Path) -> None:
    assert _load(tmp_path, '[risk]\nstop_loss_frac = "off"\n').risk.stop_loss_frac is None
    with pytest.raises(ConfigError, match=r"risk\.max_position_notional = 'off'"):
        _load(tmp_path, '[risk]\nmax_position_notional = "off"\n')


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[risk]\nmax_order_notional = -5.0\n", r"risk\.max_order_notional = -5\.0 \(from .*mm\.toml\): .*greater than 0"),
        ("[risk]\nmax_order_notional = nan\n", r"risk\.max_order_notional = nan .*finite"),
        ("[risk]\nmax_ordr_notional = 5.0\n", r"risk\.max_ordr_notional .*mm\.toml\) is not a setting; did you mean 'risk\.max_order_notional'"),
        ("sed = 5\n", r"sed .*is not a setting; did you mean 'seed'"),
        ('instrument = "BTCUSDT"\n', r"instrument = 'BTCUSDT' .*<venue>:<BASE>-<QUOTE>"),
        ('registry_uri = "postgresql://x/y"\n', r"registry_uri = .*expected sqlite:///path"),
        ('registry_uri = "http://me:hunter2@host:5000"\n', r"registry_uri = .*does not belong into the address"),
        ("[risk.parameter_bounds]\nsigmaa = [0.1, 1.0]\n", r"'sigmaa' is not a parameter; did you mean 'sigma'"),
        ("[risk.parameter_bounds]\nsigma = [2.0, 1.0]\n", r"sigma: lower bound 2\.0 exceeds"),
        ("[risk]\nmax_order_notional = 9.0\nmax_position_notional = 5.0\n", r"risk \(from .*mm\.toml\): max_order_notional 9\.0 exceeds"),
        ("[strategy]\nmin_spread = 0.02\n", r"min_spread 0\.02 exceeds max_spread 0\.01"),
        ("[sweep]\nrisk_aversions = [0.5, 0.1]\n", r"sweep\.risk_aversions = \[0\.5, 0\.1\] .*ascending"),
        ("[sweep]\nrisk_aversions = [0.5, 0.0]\n", r"sweep\.risk_aversions = .*greater than 0"),
        ('[sweep]\nhedge_thresholds_units = [1.0, "nevr"]\n', r"sweep\.hedge_thresholds_units = \[1\.0, 'nevr'\]"),
        ("risk = 5\n", r"risk = 5 .*mm\.toml"),
        (
            '[[instruments]]\ninstrument = "a:B-C"\ntick_size = 0.1\nlot_size = "1"\ncontract = "spot"\nmaker_fee = 0\ntaker_fee = 0\n',
            r"entry 1: .*decimal strings",
        ),
        ("seed = \n", r"mm\.toml is not valid TOML"),
    ],
)
def test_errors_name_key_value_expectation_and_file(tmp_path: Path, toml: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, toml)
    assert re.search(says, str(caught.value)), str(caught.value)


def test_a_password_in_the_address_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, 'registry_uri = "http://me:hunter2@host:5000"\n')
    assert "hunter2" not in str(caught.value)


def test_errors_in_the_environment_name_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed = 'x' \(from environment variable MM_SEED\)"):
        _load(tmp_path, environ={"MM_SEED": "x"})
    with pytest.raises(ConfigError, match=r"MM_SEEED sets nothing.*did you mean 'seed'"):
        _load(tmp_path, environ={"MM_SEEED": "3"})
    with pytest.raises(ConfigError, match="MM_RISK sets nothing"):
        _load(tmp_path, environ={"MM_RISK": "3"})
    with pytest.raises(ConfigError, match="not a TOML list or table"):
        _load(tmp_path, environ={"MM_SWEEP__RISK_AVERSIONS": "[0.1"})


def test_a_flag_in_error_is_named_as_a_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"instrument = 'x' \(from flag --instrument\)"):
        _load(tmp_path, overrides={"instrument": "x"})


def test_facts_of_instruments(tmp_path: Path) -> None:
    entry = '[[instruments]]\ninstrument = "binanceusdm:BTC-USDT-PERP"\ntick_size = "0.1"\nlot_size = "0.001"\ncontract = "linear"\nmaker_fee = 0.0002\ntaker_fee = 0.0005\nvalid_from_ns = {}\n'
    settings = _load(tmp_path, entry.format(5) + entry.format(0))
    instrument = InstrumentId.parse("binanceusdm:BTC-USDT-PERP")
    assert [spec.valid_from_ns for spec in settings.specs_of(instrument)] == [0, 5]
    assert settings.specs_of(InstrumentId.parse("sim:BTC-USDT")) == []
    with pytest.raises(ConfigError, match="stated twice"):
        _load(tmp_path, entry.format(5) + entry.format(5))


def test_the_sample_shows_every_key_and_changes_nothing(tmp_path: Path) -> None:
    sample = write_default_toml()
    assert _load(tmp_path, sample) == _load(tmp_path)
    # uncommented, it is the defaults again: what it shows is what holds
    live = re.sub(r"(?m)^# (?=[a-z_A-Z0-9]+ = (?!\.\.\.))", "", sample.split("# Facts of instruments")[0])
    assert _load(tmp_path, live) == _load(tmp_path)
    assert tomllib.loads(live)["risk"].keys() == type(Settings().risk).model_fields.keys()


def test_settings_do_not_change_after_reading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().seed = 3  # type: ignore[misc]


# -- secrets -------------------------------------------------------------------------------------------------------------------------


def test_keys_from_the_environment_are_masked(tmp_path: Path) -> None:
    environ = {"MM_SECRET_BINANCEUSDM_API_KEY": "k-visible", "MM_SECRET_BINANCEUSDM_API_SECRET": "s-visible"}
    settings = _load(tmp_path, environ=environ)
    keys = load_venue_keys(settings, "binancefutures", environ=environ)
    assert keys.api_key.get_secret_value() == "k-visible"
    assert "visible" not in f"{keys!r} {keys} {settings!r} {keys.model_dump_json()}"


def test_keys_from_a_private_file_only(tmp_path: Path) -> None:
    settings = _load(tmp_path)
    file = tmp_path / ".mm" / "secrets.toml"
    file.parent.mkdir()
    file.write_text('[okx]\napi_key = "k"\napi_secret = "s"\napi_passphrase = "p"\n')
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 0640.*chmod 600"):
        load_venue_keys(settings, "okx", environ={})
    file.chmod(0o600)
    keys = load_venue_keys(settings, "okx", environ={})
    assert keys.api_passphrase is not None
    assert keys.api_passphrase.get_secret_value() == "p"
    with pytest.raises(ConfigError, match="no keys for gate: set MM_SECRET_GATE_API_KEY"):
        load_venue_keys(settings, "gateio", environ={})


def test_half_a_pair_of_keys_is_refused_without_showing_it(tmp_path: Path) -> None:
    environ = {"MM_SECRET_OKX_API_KEY": "k-visible"}
    with pytest.raises(ConfigError, match=r"api_secret \(missing\)") as caught:
        load_venue_keys(_load(tmp_path), "okx", environ=environ)
    assert "visible" not in str(caught.value)


def test_a_broken_secrets_file_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[okx]\napi_key = "visible\n')
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        load_venue_keys(_load(tmp_path, f'secrets_file = "{file}"\n'), "okx", environ={})
    assert "visible" not in str(caught.value)
    assert str(file) in str(caught.value)
