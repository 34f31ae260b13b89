"""Options and the list of plug-in modules, nothing more."""

pytest_plugins = ["fixtures.allure_guard", "fixtures.session", "fixtures.junit"]
