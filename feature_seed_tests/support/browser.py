"""A headless Chromium that finds what it clicks by the texts on the page."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from feature_seed_tests.support.patience import HANG_SECONDS

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

INSTALLED = CHROMIUM.exists() and DRIVER.exists()

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",  # containers have 64 MB there: too little, and pages crash
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1440,1100",
)


class Browser:
    """One tab. Every search waits until its text appears."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver
        # A page renders its parts anew while a test looks at them, and its dialogs fade in over what the test clicks.
        passing = (StaleElementReferenceException, ElementClickInterceptedException)
        self._wait = WebDriverWait(driver, HANG_SECONDS, ignored_exceptions=passing)

    def open(self, url: str) -> None:
        self._driver.get(url)

    def resize(self, width: int, height: int) -> None:
        self._driver.set_window_size(width, height)

    def click(self, text: str, *, exactly: bool = False) -> None:
        """The last button, link or tab whose text is this, or starts like it, once it can be clicked."""
        matches = f"normalize-space() = {text!r}" if exactly else f"starts-with(normalize-space(), {text!r})"
        self._click(f"//*[self::button or self::a or @role = 'tab'][{matches}]", text)

    def press(self, text: str) -> None:
        """The element with this text and nothing else, such as a line of a menu."""
        self._click(f"//*[not(*)][normalize-space() = {text!r}]", text)

    def _click(self, path: str, text: str) -> None:
        def clicked(driver: Chrome) -> bool:
            found = [one for one in driver.find_elements(By.XPATH, path) if one.is_displayed() and one.is_enabled()]
            for one in found[-1:]:
                one.click()
            return bool(found)

        self._wait.until(clicked, f"cannot click {text!r}")

    def see(self, text: str) -> None:
        """Wait until one element shows this text."""
        visible = f"//*[text()[contains(., {text!r})]]"
        self._wait.until(
            lambda driver: any(one.is_displayed() for one in driver.find_elements(By.XPATH, visible)), f"no {text!r}"
        )

    def images(self, count: int) -> list[WebElement]:
        """The inline PNGs of the page, once so many have been drawn."""
        drawn = "return [...document.querySelectorAll('img[src^=\"data:image/png\"]')].filter(one => one.naturalWidth)"

        def all_drawn(driver: Chrome) -> list[WebElement] | Literal[False]:
            images = driver.execute_script(drawn)
            return images if len(images) == count else False

        return self._wait.until(all_drawn, f"not {count} images")

    def screenshot(self, path: Path) -> None:
        """A picture of the page once nothing on it moves: no dialog fades in, no placeholder waits for its text."""
        moves = "return document.getAnimations().some(one => one.playState === 'running')"
        self._wait.until(lambda driver: not driver.execute_script(moves), "the page does not come to rest")
        assert self._driver.save_screenshot(str(path))


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile, from Debian's packages: nothing is downloaded."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in (*_OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    driver = Chrome(options, Service(str(DRIVER)))
    try:
        driver.set_page_load_timeout(HANG_SECONDS)
        yield Browser(driver)
    finally:
        driver.quit()
