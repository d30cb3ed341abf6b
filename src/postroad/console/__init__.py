"""The web console: pages for the people who run campaigns, `postroad console`.

=============  =====================================================================
app            the application: routes of all screens, errors as pages
guard          host, origin and headers of every request and response
authorise      who asks, and whether their role may: the dependency of every route
visit          one request of a user: reads, acts, renders
screen         a page with its routes and roles; `registry` lists all of them
screens/       one module for each screen
templates/     their HTML; `macros.html` has the parts
static/        one style sheet, htmx, and the licence of htmx
=============  =====================================================================

To add a screen: write a module with a `Screen` in `screens`, a template, and a line in `registry`.
"""
