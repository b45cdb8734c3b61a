"""Web pages for tenants and foundation admins: thin views over services and selectors."""
