"""The interactive page in a real browser, on a synthetic results folder of 100 settings."""

import json

from report.pages import METHODS, OF_RUN, choose, click, shown, visit, wait


def axis_title(browser, letter):
    return browser.execute_script(f"return document.querySelector('#chart .{letter}title').textContent")


def point(browser, name, budget):
    """(x, y) on the screen of a method's point in the chart."""
    browser.execute_script("document.getElementById('chart').scrollIntoView({block: 'center'})")
    return browser.execute_script(
        """
        const chart = document.getElementById("chart"), id = arguments[0];
        const trace = chart._fullData.findIndex(one => (one.ids ?? []).includes(id));
        const index = chart._fullData[trace].ids.indexOf(id), box = chart.getBoundingClientRect();
        const { xaxis, yaxis } = chart._fullLayout, { x, y } = chart._fullData[trace];
        return [box.x + xaxis._offset + xaxis.d2p(x[index]), box.y + yaxis._offset + yaxis.d2p(y[index])].map(Math.round);
        """,
        f"dit-20/{name}/{budget}",
    )


def mouse(browser, place, press=False):
    for kind in ("mouseMoved", *(("mousePressed", "mouseReleased") if press else ())):
        event = {"type": kind, "x": place[0], "y": place[1], "button": "left" if press else "none", "clickCount": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)


def test_a_page_of_100_settings_is_small_and_opens_at_once(opened, synthetic):
    assert len(synthetic[1]["settings"]) >= 100
    assert opened.execute_script("return document.querySelectorAll('figure img').length") == 3 * len(OF_RUN)
    assert synthetic[0].stat().st_size < 15e6
    times = []
    for _ in range(3):
        visit(opened, synthetic[0])
        times.append(int(wait(opened, "document.documentElement.dataset.ready")))
    assert opened.execute_script("return document.querySelectorAll('#chart .point').length") == 33
    assert min(times) < 2000  # ms; the least, because the machine may be busy


def test_leaderboard_sorts(opened, synthetic):
    click(opened, "#filter-empty")
    values = {one["id"]: one["values"].get("fd", {}).get("value") for one in synthetic[1]["settings"]}
    for end in (min, max):
        click(opened, "#board thead th:nth-child(4) button")
        order = [values[one] for one in shown(opened)]
        measured = [value for value in order if value is not None]
        assert measured == sorted(measured, reverse=end is max) and order[: len(measured)] == measured
        assert len(order) == len(values) and order[-1] is None
    click(opened, "#board thead th:nth-child(1) button")
    assert shown(opened)[0].split("/")[1] == "fewer_steps"


def test_leaderboard_filters(opened):
    assert not any("fora/0.9" in one for one in shown(opened))
    click(opened, "#filter-empty")
    everything = shown(opened)
    choose(opened, "filter-where", "backbone dit-model")
    assert {one.split("/")[0] for one in shown(opened)} == {"dit-20", "dit-50"}
    choose(opened, "filter-where", "run uvit-10")
    assert {one.split("/")[0] for one in shown(opened)} == {"uvit-10"}
    assert opened.execute_script("return document.getElementById('chart-run').value") == "uvit-10"
    choose(opened, "filter-budget", "0.7")
    assert shown(opened) == ["uvit-10/full/1"] + [f"uvit-10/{name}/0.7" for name in METHODS]
    choose(opened, "filter-kind", "cache")
    assert shown(opened) == ["uvit-10/full/1", "uvit-10/fora/0.7", "uvit-10/l2c/0.7", "uvit-10/fora_spread/0.7"]
    click(opened, "#filter-empty")
    assert "uvit-10/fora/0.7" not in shown(opened) and len(shown(opened)) == 3
    assert opened.execute_script("return document.getElementById('shown').value") == f"3 of {len(everything)} rows"
    choose(opened, "filter-kind", "control")
    assert shown(opened) == ["uvit-10/full/1", "uvit-10/fewer_steps/0.7", "uvit-10/random_skip/0.7"]


def test_a_row_without_numbers_says_why(opened):
    click(opened, "#filter-empty")
    row = "document.querySelector('#board tr[data-id=\"dit-20/fora/0.9\"]')"
    text = wait(opened, f"{row}.innerText", lambda: opened.execute_script(f"{row}.scrollIntoView()"))  # not laid out before
    assert "unreachable: The nearest cost is 0.5 <b>(dit-20)</b>." in text


def test_chart_switches_its_axes(opened):
    assert axis_title(opened, "x") == "MACs, % of full" and axis_title(opened, "y") == "FD, tiny_cnn, n = 500"
    assert opened.execute_script("return document.querySelectorAll('#chart .errorbar').length") > 20  # of those in colour
    for key, title in {"latency_ms": "Latency, ms/image", "peak_memory_mb": "Peak memory, MB, whole process"}.items():
        choose(opened, "chart-x", key)
        assert axis_title(opened, "x") == title
        assert opened.execute_script("return document.querySelectorAll('#chart .point').length") == 33
    choose(opened, "chart-y", "latent_mse")
    assert axis_title(opened, "y") == "Latent MSE, to full"
    assert (
        opened.execute_script("return document.querySelectorAll('#chart .point').length") == 32
    )  # full has no distance to itself


def test_hover_and_click_on_a_point(opened, synthetic):
    hover = "document.querySelector('#chart .hoverlayer text')?.textContent"
    text = wait(opened, hover, lambda: mouse(opened, point(opened, "l2c", 0.5)))
    cell = next(one for one in synthetic[1]["settings"] if one["id"] == "dit-20/l2c/0.5")["values"]
    assert "L2c, budget 0.5" in text and "threshold=" in text and "MACs, % of full: 49.7" in text
    assert f"{cell['fd']['text']} ± 0.400" in text
    wait(opened, "document.getElementById('panel').open", lambda: mouse(opened, point(opened, "l2c", 0.5), press=True))
    assert opened.execute_script("return document.getElementById('panel-title').textContent") == "L2c"


def test_panel_shows_schedule_samples_fit_and_command(opened, synthetic):
    click(opened, "#board tr[data-id='dit-20/l2c/0.5'] a")
    wait(opened, "document.querySelector('#panel .schedule .hm')")
    setting = next(one for one in synthetic[1]["settings"] if one["id"] == "dit-20/l2c/0.5")
    text = opened.execute_script("return document.getElementById('panel').innerText")
    cost = "It computed 49.7 % of the full run's MACs, with a standard deviation of 1.25 % over the images; 50.0 % were planned"
    for word in ("threshold", "lambda=0.1", "medians of 4 rows", setting["command"], "Difference × 4", cost, "17.0 times"):
        assert word in text
    strips = "return [...document.querySelectorAll('#panel .strips img')].map(one => [one.naturalWidth, one.alt.split(':')[0]])"
    assert opened.execute_script(strips) == [[298, one] for one in ("Full run", "Fewer steps", "L2c", "Difference × 4")]
    assert opened.execute_script("return document.querySelectorAll('#panel .curve .js-line').length") == 2
    click(opened, "#panel a[href='#dit-20/l2c/0.9']")
    wait(opened, "document.querySelector('#panel [aria-current]')?.textContent === 'budget 0.9'")
    opened.back()
    wait(opened, "document.querySelector('#panel [aria-current]')?.textContent === 'budget 0.5'")
    click(opened, "#panel header button")
    assert not opened.execute_script("return document.getElementById('panel').open")
    click(opened, "#board tr[data-id='dit-20/fewer_steps/0.5'] a")
    wait(opened, "document.getElementById('panel').open")
    assert [name for _, name in opened.execute_script(strips)] == ["Full run", "Fewer steps", "Difference × 4"]
    click(opened, "#panel header button")
    click(opened, "#filter-empty")
    click(opened, "#board tr[data-id='dit-20/fora/0.9'] a")
    wait(opened, "document.getElementById('panel').open")
    assert "unreachable: The nearest" in opened.execute_script("return document.getElementById('panel').innerText")


def test_the_panel_keeps_the_focus_from_budget_to_budget(opened):
    click(opened, "#board tr[data-id='dit-20/l2c/0.5'] a")
    wait(opened, "document.getElementById('panel').open")
    opened.execute_script("document.querySelector(\"#panel a[href='#dit-20/l2c/0.9']\").focus()")
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    for kind in ("keyDown", "keyUp"):
        opened.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind} | enter)
    wait(opened, "document.querySelector('#panel [aria-current]')?.textContent === 'budget 0.9'")
    focused = "return document.activeElement.textContent"
    assert opened.execute_script(focused) == "budget 0.9"
    opened.execute_script("document.querySelector('#panel header button').focus()")
    opened.back()
    wait(opened, "document.querySelector('#panel [aria-current]')?.textContent === 'budget 0.5'")
    assert opened.execute_script(focused) == "Close"


def test_the_address_keeps_how_the_leaderboard_is_sorted_and_whether_it_has_empty_rows(opened, synthetic):
    click(opened, "#filter-empty")
    for sign in ("", "-"):
        click(opened, "#board thead th:nth-child(4) button")
        order, address = shown(opened), opened.execute_script("return location.hash")
        assert address == f"#?filter-empty=true&sort={sign}4"
    opened.get("about:blank")
    opened.get(f"{synthetic[0].as_uri()}{address}")
    wait(opened, "'whole' in document.documentElement.dataset")
    assert shown(opened) == order and len(order) == len(synthetic[1]["settings"])
    assert opened.execute_script("return location.hash") == address
    assert opened.execute_script("return document.querySelectorAll('#board [aria-sort=descending]').length") == 1


def test_in_colour_are_the_controls_and_of_each_family_what_comes_lowest_at_any_cost(opened, synthetic):
    points = [one for one in synthetic[1]["settings"] if one["run"] == "dit-20" and one["values"].get("fd", {}).get("value")]
    best = {}
    for one in sorted(points, key=lambda one: one["values"]["fd"]["value"]):
        best.setdefault(one["method"] if one["kind"] == "control" else one["family"], one["name"])
    legend = opened.execute_script("return [...document.querySelectorAll('#chart .legendtext')].map(one => one.textContent)")
    assert sorted(legend) == sorted(best.values())
    text = opened.execute_script("return document.getElementById('explore').innerText")
    assert "of each family the method that comes lowest, at whatever cost, and the controls" in text


def test_the_address_keeps_what_was_switched(opened, synthetic):
    choose(opened, "chart-x", "latency_ms")
    choose(opened, "filter-budget", "0.7")
    click(opened, "input[name=by][value=closeness]")
    address = opened.execute_script("return location.hash")
    assert address == "#?chart-x=latency_ms&filter-budget=0.7&by=closeness"
    opened.get("about:blank")
    opened.get(f"{synthetic[0].as_uri()}#dit-50/l2c/0.5{address[1:]}")
    wait(opened, "document.documentElement.dataset.ready && document.getElementById('panel').open")
    assert axis_title(opened, "x") == "Latency, ms/image" and all(one.endswith(("/0.7", "/1")) for one in shown(opened))
    assert (
        opened.execute_script("return [...document.querySelectorAll('.answer')].find(one => !one.hidden).dataset.by")
        == "closeness"
    )
    click(opened, "#panel header button")
    wait(opened, f"location.hash === {json.dumps(address)}")


def test_typing_finds_a_method(opened):
    opened.execute_script(
        "const box = document.getElementById('chart-find'); box.value = 'SPREAD'; box.dispatchEvent(new Event('input'))"
    )
    wait(opened, "document.querySelectorAll('#chart .legendtext').length === 1")
    assert opened.execute_script("return document.querySelector('#chart .legendtext').textContent") == "Fora spread"


def test_only_the_pages_own_scripts_may_run(opened):
    opened.execute_script(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.bad = 1'}))"
    )
    assert not opened.execute_script("return window.bad")
    (entry,) = opened.get_log("browser")
    assert "Content Security Policy" in entry["message"]


def test_ties_are_marked_and_the_best_beyond_doubt_is_bold(synthetic):
    marks = {one["id"]: one["ties"] for one in synthetic[1]["settings"]}
    tied = {"fd": "tie", "fd_minus_full": "tie"}
    assert marks["dit-20/fewer_steps/0.3"] == tied | {"latent_mse": "best"} and marks["dit-20/l2c/0.3"] == tied
    assert marks["dit-20/fewer_steps/0.4"] == {"fd": "best", "fd_minus_full": "best", "latent_mse": "best"}
    assert marks["dit-20/full/1"] == marks["dit-20/fora/0.9"] == {}
