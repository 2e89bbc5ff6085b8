"""Reports: one HTML file a plate and one for the screen, which open offline.

subject     what a report is about: wells, sites, cells, model         wells, maps: tables in
plate screen    the two pages: their sections in order
head grids response audit gallery fields quarantine profiles words     a section each
basis       what values are in units of
charts charts_model palette pictures    specifications and pixels
page templates/    one self-contained file of it all
"""
